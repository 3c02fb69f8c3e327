"""Who gets which run, and when."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from .api import Api, Json, raw_request

GPUS = [
    {"id": 0, "vram_mb": 100, "tags": ["cuda"]},
    {"id": 1, "vram_mb": 200, "tags": ["cuda", "nvidia-h200"]},
]
BIG: Json = {"cpu_cores": 4, "ram_mb": 1000, "gpus": GPUS}


def ids(runs: list[Json]) -> list[str]:
    return [run["id"] for run in runs]


async def test_a_claim_takes_the_oldest_of_the_highest_priority(api: Api) -> None:
    await api.beat()
    low = await api.submit(priority=1)
    first, second = await api.submit(), await api.submit()
    urgent = await api.submit(priority=9)
    claimed = await api.claim(max_runs=3)
    assert ids(claimed) == [urgent, first, second]
    assert [(r["state"], r["worker_id"], r["current_attempt"]) for r in claimed] == [
        ("ASSIGNED", "w1", 1)
    ] * 3
    assert claimed[0]["inputs"] == {"n": 1}
    assert ids(await api.claim(max_runs=3, holding=[urgent, first, second])) == [low]


@pytest.mark.parametrize(
    ("needs", "fits"),
    [
        ({}, True),
        ({"tags": ["here"]}, True),
        ({"tags": ["here", "cuda", "nvidia-h200"]}, True),
        ({"tags": ["there"]}, False),
        ({"constraints": {"cpu": 4, "ram_mb": 1000, "vram_mb": 300}}, True),
        ({"constraints": {"cpu": 5}}, False),
        ({"constraints": {"ram_mb": 1001}}, False),
        ({"constraints": {"vram_mb": 301}}, False),
    ],
)
async def test_a_run_goes_only_to_a_worker_that_fits(api: Api, needs: Json, fits: bool) -> None:
    await api.beat(resources=BIG, tags=["here"])
    run = await api.submit(**needs)
    behind = await api.submit(constraints={"cpu": 1})
    assert ids(await api.claim()) == [run if fits else behind]


async def test_what_runs_hold_is_reserved_until_they_end(api: Api) -> None:
    await api.beat(resources=BIG)
    large = await api.submit(constraints={"cpu": 3, "vram_mb": 150})
    assert ids(await api.claim()) == [large]
    second = await api.submit(constraints={"cpu": 2})
    gpu = await api.submit(constraints={"vram_mb": 150})
    small = await api.submit(constraints={"cpu": 1, "vram_mb": 100})
    free = await api.submit()
    assert ids(await api.claim(max_runs=9, holding=[large])) == [small, free]
    await api.post(f"/runs/{large}/cancel")
    assert ids(await api.claim(max_runs=9, holding=[small, free])) == [second, gpu]


async def test_a_worker_that_shrank_gets_only_what_asks_for_nothing(api: Api) -> None:
    await api.beat(resources=BIG)
    held = await api.submit(constraints={"cpu": 4, "vram_mb": 300})
    await api.claim()
    await api.beat(running=(held,), resources={"cpu_cores": 1, "gpus": GPUS[:1]})
    await api.submit(constraints={"vram_mb": 1})
    free = await api.submit()
    assert ids(await api.claim(max_runs=5)) == [free]


async def test_a_worker_must_send_a_heartbeat_first(api: Api) -> None:
    for worker in ("w1", "..%2Fw"):
        detail = await api.detail("POST", f"/workers/{worker}/claim", 404, json={})
        assert "heartbeat first" in detail or "nothing at this address" in detail


async def test_a_claim_whose_answer_was_lost_comes_again(api: Api) -> None:
    await api.beat()
    lost = await api.submit()
    first = await api.claim()
    waiting = await api.submit()
    assert await api.claim() == first  # the heartbeat did not list it
    assert ids(await api.claim(max_runs=2)) == [lost, waiting]
    await api.beat(running=(lost, waiting))
    assert await api.claim() == []
    assert ids(await api.claim(holding=[waiting])) == [lost]
    assert len(await api.get(f"/runs/{lost}/attempts")) == 1


async def woken(
    api: Api, news: Callable[[], Any], worker: str = "w1", holding: list[str] | None = None
) -> list[str]:
    """Return what a claim that waits gets once `news` has happened."""
    got: list[str] = []

    async def wait() -> None:
        got.extend(ids(await api.claim(worker, wait_s=60, holding=holding or [])))

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.05)
            assert got == []
            await news()
    return got


async def test_a_waiting_claim_is_woken_by_a_submitted_run(api: Api) -> None:
    await api.beat()
    made: list[str] = []

    async def submit() -> None:
        made.append(await api.submit())

    assert await woken(api, submit) == made


async def test_a_waiting_claim_is_woken_when_capacity_is_free_again(api: Api) -> None:
    await api.beat(resources={"cpu_cores": 1})
    held = await api.running(constraints={"cpu": 1})
    await api.beat(running=(held,), resources={"cpu_cores": 1})
    waiting = await api.submit(constraints={"cpu": 1})
    end = lambda: api.event(held, "COMPLETED", worker_id="w1", attempt=1)  # noqa: E731
    assert await woken(api, end) == [waiting]


async def test_a_waiting_claim_is_woken_by_a_release_and_a_retry(api: Api) -> None:
    await api.beat("w2")
    run = await api.running("w1")
    body = {"worker_id": "w1", "attempt": 1, "reason": "SHUTDOWN"}
    assert await woken(api, lambda: api.post(f"/runs/{run}/release", body), "w2") == [run]
    await api.post(f"/runs/{run}/cancel")
    assert await woken(api, lambda: api.post(f"/runs/{run}/retry"), "w2") == [run]


async def test_a_claim_that_waits_in_vain_gets_nothing(api: Api) -> None:
    await api.beat()
    assert await api.claim(wait_s=0.01) == []


async def test_two_waiting_workers_never_get_the_same_run(api: Api) -> None:
    got: list[str] = []

    async def work(worker: str) -> None:
        await api.beat(worker)
        while len(got) < 20:
            got.extend(ids(await api.claim(worker, max_runs=2, wait_s=0.2, holding=got)))

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(work, f"w{number}")
            made = [await api.submit() for _ in range(20)]
    assert sorted(got) == sorted(made)


async def test_a_claim_gives_nothing_to_a_client_that_went_away(api: Api) -> None:
    await api.beat("w1")
    await api.beat("w2")
    stream = await raw_request(api, "POST", "/workers/w1/claim", '{"wait_s": 60}')
    await wait_all_tasks_blocked(0.05)
    await stream.aclose()
    await wait_all_tasks_blocked(0.05)
    run = await api.submit()
    assert (await api.run(run))["state"] == "PENDING"
    assert ids(await api.claim("w2")) == [run]


async def test_a_draining_worker_gets_nothing_new(api: Api) -> None:
    await api.beat()
    assert await woken(api, lambda: api.post("/workers/w1/drain")) == []
    assert (await api.beat())["drain"] is True
    run = await api.submit()
    assert await api.claim(wait_s=60) == []  # at once
    assert await woken_by_resume(api) == [run]
    assert (await api.beat())["drain"] is False


async def woken_by_resume(api: Api) -> list[str]:
    await api.post("/workers/w1/resume")
    return ids(await api.claim(wait_s=60))


async def test_a_worker_that_drains_itself_ends_its_waiting_claim(api: Api) -> None:
    await api.beat()
    assert await woken(api, lambda: api.beat(draining=True)) == []
    await api.submit()
    assert await api.claim(wait_s=60) == []


async def test_a_draining_worker_gives_back_what_never_reached_it(api: Api) -> None:
    await api.beat()
    listed, unheard, started = [await api.submit() for _ in range(3)]
    await api.claim(max_runs=3)
    await api.event(started, "STARTED", worker_id="w1", attempt=1)
    answer = await api.beat(running=(listed, started), draining=True)
    assert answer["states"] == {listed: "ASSIGNED", started: "RUNNING"}
    states = [(await api.run(run))["state"] for run in (listed, unheard, started)]
    assert states == ["ASSIGNED", "PENDING", "RUNNING"]


@pytest.mark.parametrize("trouble", [{"engine": "unavailable"}, {"disk": "low"}])
async def test_a_worker_that_could_not_run_anything_gets_nothing_until_it_can(
    api: Api, trouble: Json
) -> None:
    await api.beat(engine="ok", disk="ok")
    unheard = await api.submit()
    await api.claim()
    await api.beat(**trouble)
    waiting = await api.submit(priority=1)
    assert await api.claim(max_runs=9, wait_s=0.01) == []

    async def mend() -> None:
        await api.submit(priority=1)  # wakes the claim, in vain
        await api.beat(engine="ok", disk="ok")

    assert await woken(api, mend) == [unheard]
    assert ids(await api.claim(holding=[unheard])) == [waiting]


@pytest.mark.parametrize(
    "body", [{"max_runs": 0}, {"wait_s": "soon"}, {"wait_s": -5}, {"holding": "x"}]
)
async def test_a_malformed_claim_is_422(api: Api, body: Json) -> None:
    await api.beat()
    assert next(iter(body)) in await api.detail("POST", "/workers/w1/claim", 422, json=body)


async def test_a_draining_worker_keeps_what_a_claim_may_be_bringing_it(api: Api) -> None:
    await api.beat()
    run = await api.submit()
    await api.claim()

    async def drain() -> None:
        await api.beat(draining=True)  # while a claim is being answered
        assert (await api.run(run))["state"] == "ASSIGNED"

    assert await woken(api, drain, holding=[run]) == []
    await api.beat(draining=True)
    assert (await api.run(run))["state"] == "PENDING"


async def test_two_claims_of_one_worker_wait_beside_each_other(api: Api) -> None:
    await api.beat()
    answers: list[list[str]] = []

    async def wait() -> None:
        answers.append(ids(await api.claim(wait_s=60)))

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.05)
            run = await api.submit()
            await api.beat(running=(run,))
            await wait_all_tasks_blocked(0.05)
            await api.post("/workers/w1/drain")
    assert [run] in answers
    assert all(answer in ([run], []) for answer in answers)
