"""Bodies, inputs and outputs that are large, or hold very many values."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gyoza.models.limits import VALUES
from gyoza.server.json_text import write_text
from gyoza.server.limits import Limits
from gyoza.server.plain_json import TooManyValues, parse
from gyoza.server.store import claims, feed, runs, texts

from .api import Api, Json, serving, settings_in

KB = 1024
PLAIN = {"Content-Type": "application/json"}
LARGE: Json = {
    "text": 'é"\\\n\x7f\u2028😀' * 100_000,
    "values": [[], {}, {"": None}, -0.5, 1e300, 10**300, True] * 5_000,
    "deep": {"a": [{"b": {"c": []}}]},
}
ME: Json = {"worker_id": "w1", "attempt": 1}


def rows_of(directory: Path) -> dict[str, int]:
    """Return how many rows the tables of large texts have."""
    with closing(sqlite3.connect(directory / "server.sqlite3")) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("texts", "text_parts")
        }


async def test_large_inputs_come_back_as_they_were_also_after_a_restart(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as api:
        run = await api.submit(inputs=LARGE)
    assert rows_of(tmp_path)["text_parts"] > 4
    async with serving(settings_in(tmp_path)) as api:
        assert (await api.run(run))["inputs"] == LARGE
        await api.beat()
        [claimed] = await api.claim()
        assert claimed["inputs"] == LARGE
        assert [listed["inputs"] for listed in (await api.get("/runs"))["data"]] == [{}]


async def test_large_outputs_are_taken_once_however_often_they_are_told(api: Api) -> None:
    run = await api.running()
    for _ in range(2):
        assert (await api.event(run, "COMPLETED", payload=LARGE, **ME))["outputs"] == LARGE
    other: Json = LARGE | {"deep": {"a": [{"b": {"d": []}}]}}
    refused: list[Json] = [other, {}, {"x": "y" * 100 * KB}]
    for payload in refused:
        await api.event(run, "COMPLETED", payload=payload, status=409, **ME)
    told = await api.run(run)
    assert told["outputs"] == told["events"][-1]["payload"] == LARGE


async def test_outputs_of_medium_size_are_compared_whatever_their_order(api: Api) -> None:
    for size in (10, 100 * KB):
        run = await api.running()
        await api.event(run, "COMPLETED", payload={"a": "x" * size, "b": 1}, **ME)
        same, other = {"b": 1, "a": "x" * size}, {"a": "x" * size, "b": 2}
        await api.event(run, "COMPLETED", payload=same, status=200 if size == 10 else 409, **ME)
        await api.event(run, "COMPLETED", payload=other, status=409, **ME)


async def test_large_outputs_may_be_replaced_while_the_run_goes_on(api: Api) -> None:
    run = await api.running()
    for outputs in (LARGE, {"small": 1}, LARGE):
        changed = await api.ask("PATCH", f"/runs/{run}", json={"outputs": outputs})
        assert changed["outputs"] == (await api.run(run))["outputs"] == outputs
    assert (await api.ask("PATCH", f"/runs/{run}", json={"priority": 1}))["outputs"] == LARGE


async def test_what_no_run_came_to_need_is_removed(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as api:
        asked: Json = {"image": "a", "inputs": LARGE}
        key = {"Idempotency-Key": "k"}
        first = await api.post("/runs", asked, 201, headers=key)
        kept = rows_of(tmp_path)
        assert (await api.post("/runs", asked, 201, headers=key))["id"] == first["id"]
        await api.event(first["id"], "COMPLETED", payload=LARGE, status=409)
        assert rows_of(tmp_path) == kept


async def test_what_a_killed_server_had_not_finished_is_removed_at_the_start(
    tmp_path: Path,
) -> None:
    async with serving(settings_in(tmp_path)) as api:
        await api.submit(inputs=LARGE)
    kept = rows_of(tmp_path)
    with closing(sqlite3.connect(tmp_path / "server.sqlite3")) as connection, connection:
        connection.execute("INSERT INTO texts VALUES ('loose', NULL, x'00')")
        connection.execute("INSERT INTO text_parts VALUES ('loose', 0, x'00')")
    async with serving(settings_in(tmp_path)):
        assert rows_of(tmp_path) == kept


async def test_others_may_write_between_the_parts_of_a_large_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "PART_BYTES", 10)
    done: list[str] = []
    async with serving(settings_in(tmp_path)) as api:

        async def submit() -> None:
            await api.submit(inputs={"text": "x" * 5_000})
            done.append("run")

        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(submit)
                while not rows_of(tmp_path)["text_parts"]:
                    await api.get("/health")
                await api.beat()
                done.append("heartbeat")
    assert done == ["heartbeat", "run"]


async def test_large_texts_go_with_their_run(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as api:
        run = await api.running(inputs=LARGE)
        await api.event(run, "COMPLETED", payload=LARGE, **ME)
    async with serving(settings_in(tmp_path, retention_days=1e-9)) as api:
        with trio.fail_after(200):
            while (await api.client.get(f"/runs/{run}")).status_code != 404:
                await trio.lowlevel.checkpoint()
    assert rows_of(tmp_path) == {"texts": 0, "text_parts": 0}


async def test_a_long_log_that_comes_at_once_is_stored_whole(api: Api) -> None:
    run = await api.running()
    text = "é€😀\n" * 100_000
    told = await api.post(f"/runs/{run}/logs", {"offset": 0, "data": text, "final": True, **ME})
    assert told == {"offset": len(text.encode())}
    assert (await api.client.get(f"/runs/{run}/logs")).text == text
    await api.event(run, "COMPLETED", **ME)
    said = await api.client.get(f"/runs/{run}/logs", headers={"Accept": "text/event-stream"})
    assert said.text.endswith('data: {"complete": true}\n\n')


@pytest.mark.parametrize("value", [b"[]", b"0", b'{"a":{}}', b'""'])
async def test_a_body_of_too_many_values_is_refused(api: Api, value: bytes) -> None:
    body = b'{"image": "a", "inputs": {"a": [%b]}}' % b",".join([value] * (VALUES + 1_000))
    assert "1000000 values" in await api.detail("POST", "/runs", 413, content=body, headers=PLAIN)
    assert await api.get("/runs") == {"data": [], "has_more": False}


async def test_bodies_of_many_values_come_one_after_the_other(tmp_path: Path) -> None:
    limits = Limits(bodies_of_many_values=1)
    ids: list[str] = []
    async with serving(settings_in(tmp_path), limits=limits) as api:

        async def submit(inputs: Json) -> None:
            ids.append(await api.submit(inputs=inputs))

        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(submit, {"a": [number] * 30_000})
        for number, run in zip(range(3), ids, strict=True):
            assert len((await api.run(run))["inputs"]["a"]) == 30_000, number


def read(data: bytes, *, large: bool) -> Any:
    try:
        return parse(data, large=large)
    except (json.JSONDecodeError, TooManyValues) as error:
        return str(error)


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUE, st.booleans(), st.integers(0, 100), st.binary(max_size=3))
def test_large_bodies_are_read_like_small_ones(
    value: Any, ascii_only: bool, at: int, instead: bytes
) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    for text in (data, data[:at] + instead + data[at + 1 :]):
        assert read(text, large=True) == read(text, large=False)


@given(VALUE)
def test_large_values_are_written_like_small_ones(value: Any) -> None:
    assert write_text(value, large=True) == write_text(value)


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


TOO_MUCH: list[tuple[str, Json, int]] = [
    ("/runs", {"inputs": dict.fromkeys(names(10_001), 1)}, 422),
    ("/runs", {"env_vars": dict.fromkeys(names(1_001), "v")}, 422),
    ("/runs", {"env_vars": dict.fromkeys(names(1_001), 7)}, 422),
    ("/runs", {"env_vars": {"A": "a"}, "secrets": ["A"] * 1_001}, 422),
    ("/runs", {"tags": ["t"] * 101}, 422),
    ("/runs", {"command": ["c"] * 10_001}, 422),
    ("/runs", {"event_delivery": {"topic": "t", "attributes": {"a": "x" * 16 * KB}}}, 422),
    ("/runs", dict.fromkeys(names(1_001), 1), 422),
    ("/runs", {"env_vars": {"A": "x" * 1024 * KB}}, 413),
    ("/definitions", {"id": "d", "description": "x" * 512 * KB}, 413),
    ("/definitions", {"id": "d", "input_specs": {n: {"type": "int"} for n in names(1_001)}}, 422),
    ("/workers/heartbeat", {"worker_id": "w", "tags": ["t"] * 1_001}, 422),
    ("/workers/heartbeat", {"worker_id": "w", "running_ops": [{"id": "r"}] * 1_001}, 422),
    ("/workers/heartbeat", {"worker_id": "w", "version": "y" * 512 * KB}, 413),
    ("/workers/heartbeat", {"worker_id": "w", "resources": {"x": "y" * 64 * KB}}, 422),
    (
        "/workers/heartbeat",
        {"worker_id": "w", "resources": {"gpus": [{"id": n, "vram_mb": 1} for n in range(1_001)]}},
        422,
    ),
    ("/workers/w1/claim", {"holding": ["r"] * 1_001}, 422),
]


@pytest.mark.parametrize(("path", "body", "status"), TOO_MUCH)
async def test_what_is_beyond_a_limit_is_refused(
    api: Api, path: str, body: Json, status: int
) -> None:
    await api.beat()
    image = {"image": "a"} if path in ("/runs", "/definitions") else {}
    detail = await api.detail("POST", path, status, json=image | body)
    assert len(detail) < 300
    assert status == 422 or "512 KiB" in detail or "1 MiB" in detail


async def test_a_batch_of_events_has_a_size(api: Api) -> None:
    run = await api.running()
    events = [{"type": "INFO", "seq": n, "payload": {"a": "x" * 900 * KB}} for n in range(3)]
    refused = await api.post(f"/runs/{run}/events/batch", {"events": events, **ME}, 413)
    assert "tell fewer" in refused["detail"]
    await api.post(f"/runs/{run}/events/batch", {"events": events[:2], **ME})


async def test_wrong_inputs_are_told_in_a_short_sentence(api: Api) -> None:
    specs = {name: {"type": "int", "required": False} for name in names(1_000)}
    await api.post("/definitions", {"id": "d", "image": "a", "input_specs": specs}, 201)
    wrong = {"x" * 1_000 + name: 1 for name in names(10_000)}
    detail = await api.detail("POST", "/definitions/d/runs", 400, json={"inputs": wrong})
    assert len(detail) < 20 * KB


async def test_a_page_of_runs_has_a_size_and_can_be_read_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PAGE_BYTES", 3_000)
    made = [await api.submit(env_vars={"A": "x" * 1_000}) for _ in range(5)]
    found: list[str] = []
    more: Json = {}
    while True:
        page = await api.get("/runs", **more)
        assert 1 <= len(page["data"]) <= 2
        found += [run["id"] for run in page["data"]]
        if not page["has_more"]:
            break
        more = {"starting_after": found[-1]}
    assert found == made[::-1]
    newer = await api.get("/runs", ending_before=made[0])
    assert [run["id"] for run in newer["data"]] == made[2:0:-1]


async def test_a_page_of_a_feed_has_a_size_and_can_be_read_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PAGE_BYTES", 1_000)
    run = await api.running(event_delivery={"topic": "t"})
    for number in range(5):
        await api.event(run, "INFO", number, payload={"a": "x" * 900})
    said: list[Any] = []
    cursor = "0"
    while (page := await api.get("/events", topic="t", after=cursor))["data"]:
        said += [item["event"]["msg"] for item in page["data"]]
        cursor = page["cursor"]
    assert said[2:] == [0, 1, 2, 3, 4]


async def test_a_claim_gives_no_more_than_a_worker_can_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "CLAIM_BYTES", 3_000)
    made = [await api.submit(inputs={"text": "x" * 1_000}) for _ in range(4)]
    await api.beat()
    first = [run["id"] for run in await api.claim(max_runs=10)]
    again = [run["id"] for run in await api.claim(max_runs=10, holding=[])]
    assert first == again == made[:2]  # its worker never heard of them
    assert [run["id"] for run in await api.claim(max_runs=10, holding=first)] == made[2:]


async def test_who_prefers_a_short_answer_gets_one(api: Api) -> None:
    run = await api.running(inputs=LARGE)
    short = {"Prefer": "return=minimal"}
    answer = await api.client.post(
        f"/runs/{run}/events", json={"type": "INFO", **ME}, headers=short
    )
    assert answer.headers["Preference-Applied"] == "return=minimal"
    assert answer.json() == {"id": run, "state": "RUNNING", "current_attempt": 1}
    released = await api.post(f"/runs/{run}/release", {**ME, "reason": "R"}, headers=short)
    assert released == {"id": run, "state": "PENDING", "current_attempt": 1}
    other = await api.client.post(
        f"/runs/{run}/events", json={"type": "CANCELLED"}, headers={"Prefer": "respond-async"}
    )
    assert "Preference-Applied" not in other.headers
    assert other.json()["inputs"] == LARGE
