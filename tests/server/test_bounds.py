"""What somebody with a key can fill the server with, or make it trip over: little, and nothing."""

from pathlib import Path

import pytest

from gyoza.server.store import logs, op_events

from .api import Api, Json, serving, settings_in

MB = 1024 * 1024


async def test_a_worker_that_tells_events_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(op_events, "EVENTS", 5)
    async with serving(settings_in(tmp_path)) as api:
        run = await api.running()  # ASSIGNED and STARTED
        by: Json = {"worker_id": "w1", "attempt": 1}
        for seq in range(3):
            await api.event(run, "INFO", seq=seq, **by)
        refused = await api.event(run, "INFO", seq=3, status=413, **by)
        assert "5" in refused["detail"]
        progress = await api.event(run, "PROGRESS", 70, seq=4, **by)
        assert [event["msg"] for event in progress["events"]] == [70]  # the run goes on
        assert (await api.get(f"/runs/{run}/attempts"))[0]["progress"] == 70
        assert (await api.event(run, "COMPLETED", **by))["state"] == "COMPLETED"
        assert len((await api.run(run))["events"]) == 7


@pytest.mark.parametrize("one_by_one", [True, False])
async def test_progress_takes_no_room_from_other_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_by_one: bool
) -> None:
    monkeypatch.setattr(op_events, "EVENTS", 3)
    monkeypatch.setattr(op_events, "PROGRESS_EVENTS", 2)
    async with serving(settings_in(tmp_path)) as api:
        run = await api.running()  # ASSIGNED and STARTED
        by: Json = {"worker_id": "w1", "attempt": 1}
        told: list[Json] = [
            {"type": "PROGRESS", "msg": percent, "seq": seq}
            for seq, percent in enumerate([0, 10, 10, 20, 20, 30, 40])
        ]
        told.append({"type": "INFO", "msg": "there is room", "seq": 7})
        if one_by_one:
            for event in told:
                await api.post(f"/runs/{run}/events", {**by, **event})
        else:
            await api.post(f"/runs/{run}/events/batch", {**by, "events": told})
        found = await api.run(run)
        assert [event["msg"] for event in found["events"][2:]] == [10, 20, "there is room"]
        assert found["progress"] == 40


async def test_a_worker_whose_events_say_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(op_events, "EVENTS_BYTES", 3000)
    async with serving(settings_in(tmp_path)) as api:
        run = await api.running()
        for kind in ("INFO", "ERROR"):
            await api.event(run, kind, payload={"x": "y" * 1000})
        await api.event(run, "PROGRESS", 1, payload={"x": "y" * 700})
        await api.event(run, "INFO", payload={"x": "y" * 1000}, status=413)
        await api.event(run, "INFO", "a few more")
        assert (await api.event(run, "FAILED"))["state"] == "FAILED"


async def test_one_event_of_megabytes(api: Api) -> None:
    run = await api.running()
    large = {"x": "y" * (MB + 1)}
    for kind in ("INFO", "FAILED", "CANCELLED"):
        refused = await api.event(run, kind, payload=large, status=413)
        assert "1 MiB" in refused["detail"]
    assert (await api.event(run, "COMPLETED", payload=large))["outputs"] == large


async def test_a_worker_that_writes_a_log_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES", 10)
    async with serving(settings_in(tmp_path)) as api:
        run = await api.running()
        await api.post(f"/runs/{run}/logs", {"offset": 0, "data": "0123456789"})
        refused = await api.detail(
            "POST", f"/runs/{run}/logs", 413, json={"offset": 10, "data": "x"}
        )
        assert "no more" in refused
        again = await api.post(f"/runs/{run}/logs", {"offset": 5, "data": "56789"})
        assert again == {"offset": 10}
        assert (await api.client.get(f"/runs/{run}/logs")).text == "0123456789"


async def test_a_run_with_as_many_events_as_there_may_be_is_still_answered(api: Api) -> None:
    """The largest answer a client takes is 64 MiB; a run at its bounds stays below that."""
    run = await api.running()
    for _ in range(16):
        await api.event(run, "INFO", payload={"x": "y" * (MB - 100)})
    await api.event(run, "INFO", payload={"x": "y" * MB}, status=413)
    answer = await api.client.get(f"/runs/{run}")
    assert 15 * MB < len(answer.content) < 17 * MB


@pytest.mark.parametrize("text", ["\0", "a\0b", "\x1b]52;c;eA==\x07", "\u202e", "\U0001f600", "\r"])
async def test_text_with_control_characters_comes_back_as_it_was(api: Api, text: str) -> None:
    run = await api.running()
    told = await api.event(run, "INFO", text, payload={text: [text]})
    assert told["events"][0]["msg"] == text
    assert told["events"][0]["payload"] == {text: [text]}
    await api.post(f"/runs/{run}/logs", {"offset": 0, "data": text})
    assert (await api.client.get(f"/runs/{run}/logs")).text == text


ODD = [
    ("GET", f"/runs?image={'x' * 10_000}"),
    ("GET", "/runs?limit=1&limit=2&limit="),
    ("GET", "/runs?limit=" + "9" * 5000),
    ("GET", "/runs?state=%00&image=%ED%A0%80"),
    ("GET", "/runs?starting_after=&ending_before=%00"),
    ("GET", "/runs?&&&=&%"),
    ("GET", "/events?topic=&wait_s="),
    ("GET", "/events?topic=t&after=" + "9" * 18),
    ("GET", "/events?topic=t&after=%D9%A1"),
    ("GET", "/runs/%2e%2e/%2e%2e"),
    ("GET", "/definitions/" + "x" * 10_000),
    ("HEAD", "/runs"),
    ("HEAD", "/nope"),
    ("OPTIONS", "/runs"),
    ("TRACE", "/runs"),
    ("PROPFIND", "/health"),
    ("DELETE", "/health"),
]


@pytest.mark.parametrize(("method", "path"), ODD)
async def test_an_odd_request(api: Api, method: str, path: str) -> None:
    answer = await api.client.request(method, path)
    assert answer.status_code < 500
    if answer.status_code >= 400 and method != "HEAD" and answer.content:
        assert list(answer.json()) == ["detail"]
    assert await api.get("/runs") == {"data": [], "has_more": False}  # it still answers


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "\xff"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Idempotency-Key": "\xe9" * 255},
        {"Content-Type": "application/json", "Idempotency-Key": "x" * 256},
    ],
)
@pytest.mark.parametrize(
    "body", [b'{"image": "a"}', '{"image": "a"}'.encode("utf-16"), b"\x1f\x8b"]
)
async def test_an_odd_body(api: Api, headers: dict[str, str], body: bytes) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = await api.client.post("/runs", content=body, headers=raw)
    assert answer.status_code in (201, 422)
    assert answer.status_code == 201 or list(answer.json()) == ["detail"]
