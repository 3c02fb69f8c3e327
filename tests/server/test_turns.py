"""Turns: requests wait for each other where there are too many, heartbeats for nobody."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gyoza.server.limits import Limits
from gyoza.server.places import Places

from .api import Api, Json, serving, settings_in


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncGenerator[Api]:
    """A server that works on one request at a time."""
    async with serving(settings_in(tmp_path), limits=Limits(at_once=1)) as api:
        yield api


async def test_a_heartbeat_needs_no_turn(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path), limits=Limits(at_once=0)) as api:
        with trio.move_on_after(0.2) as waiting:
            await api.get("/runs")
        assert waiting.cancelled_caught
        assert (await api.beat())["states"] == {}


async def test_who_waits_for_a_run_keeps_nobody_from_submitting_it(narrow: Api) -> None:
    await narrow.beat()
    claimed: list[Json] = []

    async def claim() -> None:
        claimed.extend(await narrow.claim(wait_s=30))

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim)
            run = await narrow.submit()
    assert [found["id"] for found in claimed] == [run]


async def test_who_waits_for_news_of_a_run_lets_them_come(narrow: Api) -> None:
    run = await narrow.running()
    seen: list[str] = []

    async def watch(**until: object) -> None:
        seen.append((await narrow.run(run, wait_s=30, **until))["state"])

    async def follow() -> None:
        async with narrow.client.stream("GET", f"/runs/{run}/logs?follow=1") as response:
            seen.append((await response.aread()).decode())

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            nursery.start_soon(lambda: watch(after_event=1))
            nursery.start_soon(lambda: watch(until_end=True))
            log: Json = {"offset": 0, "data": "text", "worker_id": "w1", "attempt": 1}
            await narrow.post(f"/runs/{run}/logs", log)
            await narrow.event(run, "COMPLETED", worker_id="w1", attempt=1)
    assert sorted(seen) == ["COMPLETED", "COMPLETED", "text"]


async def test_a_refusal_gives_the_turn_up(narrow: Api) -> None:
    for _ in range(3):
        await narrow.get("/runs/nothing", 404)
        await narrow.post("/runs", {}, 422)
        await narrow.get("/nothing", 404)
    assert (await narrow.get("/runs"))["data"] == []


async def test_a_free_place_goes_to_the_key_that_has_the_fewest() -> None:
    places, served = Places(2), list[str]()
    for _ in range(2):
        await places.acquire("greedy")

    async def ask(key: str) -> None:
        await places.acquire(key)
        served.append(key)

    async with trio.open_nursery() as nursery:
        for key in ("greedy", "greedy", "modest", "other", "modest"):
            nursery.start_soon(ask, key)
            await wait_all_tasks_blocked()
        for holder in ("greedy", "modest", "other", "modest", "greedy"):
            places.release(holder)
            await wait_all_tasks_blocked()
    assert served == ["modest", "other", "modest", "greedy", "greedy"]


async def test_who_waits_for_a_place_no_more_keeps_nobody_from_it() -> None:
    places = Places(1)
    await places.acquire("one")
    with trio.CancelScope() as scope:
        scope.cancel()
        await places.acquire("two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(places.acquire, "two")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        places.release("one")  # it goes to the one that was cancelled in the same moment
    with trio.fail_after(5):
        await places.acquire("three")
