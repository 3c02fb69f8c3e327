"""Heartbeats, what workers hear about their runs, and how they are shown."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gyoza.server.store import workers

from .api import Api, Json, delete, pages_of, serving, settings_in


async def test_a_heartbeat_answers_with_the_states_of_the_listed_runs(api: Api) -> None:
    mine, cancelled, given_back = [await api.running() for _ in range(3)]
    await api.post(f"/runs/{cancelled}/cancel")
    body = {"worker_id": "w1", "attempt": 1, "reason": "x"}
    await api.post(f"/runs/{given_back}/release", body)
    others = await api.submit(priority=9)
    await api.beat("w2")
    await api.claim("w2")
    listed = (mine, cancelled, given_back, others, "unknown")
    assert await api.beat(running=listed) == {
        "lease_s": 60.0,
        "states": {
            mine: "RUNNING",
            cancelled: "CANCELLED",
            given_back: "PENDING",
            others: "PENDING",
            "unknown": "PENDING",
        },
        "drain": False,
    }


async def test_workers_are_shown_as_their_heartbeats_tell(api: Api) -> None:
    resources = {"cpu_cores": 4, "ram_mb": 100, "gpus": [{"id": 0, "vram_mb": 9, "name": "H"}]}
    run = await api.running()
    await api.beat(
        running=(run,),
        resources=resources,
        tags=["a"],
        engine="unavailable",
        max_concurrency=3,
        version="1.2",
        surprise="ignored",
    )
    worker = await api.get("/workers/w1")
    assert worker["state"] == "online"
    assert worker["resources"]["gpus"][0]["name"] == "H"
    assert [op["id"] for op in worker["running_ops"]] == [run]
    assert (worker["engine"], worker["max_concurrency"]) == ("unavailable", 3)
    assert (worker["tags"], worker["version"], worker["drain"]) == (["a"], "1.2", False)
    assert worker["last_seen"].endswith("Z")
    assert "surprise" not in worker
    await api.beat("w0")
    assert [w["id"] for w in await api.get("/workers")] == ["w0", "w1"]
    assert (await api.post("/workers/w1/drain"))["state"] == "draining"
    assert (await api.post("/workers/w1/resume"))["state"] == "online"
    await api.beat(draining=True)
    assert (await api.get("/workers/w1"))["state"] == "draining"


async def test_what_a_worker_does_not_say_of_its_health_is_shown_as_unknown(api: Api) -> None:
    await api.beat()
    worker = await api.get("/workers/w1")
    assert (worker["engine"], worker["disk"], worker["draining"]) == (None, None, False)
    await api.beat(engine="ok", disk="low", draining=True)
    (worker,) = await api.get("/workers")
    assert (worker["engine"], worker["disk"], worker["draining"]) == ("ok", "low", True)


async def test_an_unknown_worker_is_404(api: Api) -> None:
    for method, path in (("GET", ""), ("POST", "/drain"), ("POST", "/resume")):
        await api.detail(method, f"/workers/nobody{path}", 404)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"worker_id": "../w"}, "worker_id"),
        ({"worker_id": ""}, "worker_id"),
        ({"running_ops": [{"id": "a/b"}]}, "running_ops"),
        ({"resources": {"cpu_cores": -1}}, "cpu_cores"),
        ({"resources": {"gpus": [{"id": 0, "vram_mb": 1}] * 2}}, "same id"),
        ({"tags": "x"}, "tags"),
    ],
)
async def test_a_malformed_heartbeat_is_422(api: Api, change: Json, word: str) -> None:
    body: Json = {"worker_id": "w1", "resources": {}, "tags": [], "running_ops": [], **change}
    assert word in await api.detail("POST", "/workers/heartbeat", 422, json=body)


async def test_a_cancel_reaches_the_waiting_worker(api: Api) -> None:
    run, other = await api.running(), await api.running()
    start = await api.get("/workers/w1/changes")
    assert start["states"] == {}
    answers: list[Json] = []

    async def wait() -> None:
        answers.append(await api.get("/workers/w1/changes", after=start["cursor"], wait_s=60))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.05)
        await api.post(f"/runs/{run}/cancel")
    assert answers[0]["states"] == {run: "CANCELLED"}
    await api.ask("PATCH", f"/runs/{other}", json={"state": "PENDING"})
    after: Any = await api.get("/workers/w1/changes", after=answers[0]["cursor"])
    assert after["states"] == {other: "PENDING"}
    both = await api.get("/workers/w1/changes", after=start["cursor"])
    assert both["states"] == {run: "CANCELLED", other: "PENDING"}
    none = await api.get("/workers/w1/changes", after=after["cursor"], wait_s=0.01)
    assert none == {"states": {}, "cursor": after["cursor"]}


async def test_a_worker_does_not_hear_of_what_it_did_itself(api: Api) -> None:
    done, failed, released = [await api.running() for _ in range(3)]
    await api.submit()
    await api.event(done, "COMPLETED", worker_id="w1", attempt=1)
    await api.event(failed, "FAILED", worker_id="w1", attempt=1)
    body = {"worker_id": "w1", "attempt": 1, "reason": "x"}
    await api.post(f"/runs/{released}/release", body)
    assert (await api.get("/workers/w1/changes", after="0"))["states"] == {}


async def test_a_cursor_of_another_database_hears_all_the_news_of_this_one(api: Api) -> None:
    ahead = await api.get("/workers/w1/changes", after="500")
    assert ahead == {"states": {}, "cursor": "0"}
    run = await api.running()
    await api.post(f"/runs/{run}/cancel")
    told = await api.get("/workers/w1/changes", after="500", wait_s=60)
    assert told == {"states": {run: "CANCELLED"}, "cursor": "1"}


@pytest.mark.parametrize("cursor", ["x", "-1", "1" * 30, "²"])
async def test_what_is_no_cursor_is_400(api: Api, cursor: str) -> None:
    for path in ("/workers/w1/changes?", "/events?topic=t&"):
        assert "cursor" in await api.detail("GET", f"{path}after={cursor}", 400)


async def test_workers_that_ended_and_those_that_are_lost_are_told_apart_and_can_go(
    tmp_path: Path,
) -> None:
    now = 1_000_000.0
    async with serving(settings_in(tmp_path, lease_s=30), clock=lambda: now) as api:
        await api.beat("left", draining=True, leaving=True)
        await api.beat("silent")
        await api.beat("here")
        assert "online" in await api.detail("DELETE", "/workers/here", 409)
        await wait_all_tasks_blocked(0.1)
        with trio.fail_after(200):
            while await states(api) != {"left": "offline", "silent": "lost", "here": "online"}:
                now += 5
                await api.beat("here")
        for worker in ("left", "silent"):
            await delete(api, f"/workers/{worker}")
            await api.detail("GET", f"/workers/{worker}", 404)
        await api.detail("DELETE", "/workers/nobody", 404)
        assert await states(api) == {"here": "online"}
        await api.beat("silent")
        assert (await states(api))["silent"] == "online"


async def test_the_server_tells_of_workers_that_are_lost_and_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gyoza.server.leases")
    async with serving(settings_in(tmp_path, lease_s=0.3)) as api:
        run = await api.running()
        with trio.fail_after(200):
            while f"Run {run} was taken from worker w1" not in caplog.text:
                await api.get("/runs")
            assert "Worker w1 was not heard of for 0.3 s" in caplog.text
            while "Worker w1 is no longer lost" not in caplog.text:
                await api.beat()


async def test_a_long_list_of_workers_comes_in_pages(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"w{number}" for number in range(5)]
    for name in names:
        await api.beat(name)
    pages = [[worker["id"] for worker in page] for page in await pages_of(api, "/workers", 2)]
    assert pages == [names[:2], names[2:4], names[4:]]
    monkeypatch.setattr(workers, "PAGE_BYTES", 1)
    assert len(await pages_of(api, "/workers", 100)) == 5


async def test_a_worker_shows_how_many_runs_it_was_given(api: Api) -> None:
    await api.running()
    assert (await api.get("/workers/w1"))["held"] == 1
    assert [worker["held"] for worker in await api.get("/workers")] == [1]


async def states(api: Api) -> dict[str, str]:
    return {worker["id"]: worker["state"] for worker in await api.get("/workers")}
