"""The queue: what a claim finds among very many runs, and what it does not look at."""

import pytest
import trio
from sqlalchemy import ClauseElement, Connection, create_engine, text
from sqlalchemy.dialects import sqlite
from trio.testing import wait_all_tasks_blocked

from gyoza.server.store import claims, queue
from gyoza.server.store.schema import metadata

from .api import Api, Json


def plan_of(sql: str) -> str:
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as conn:
            metadata.create_all(conn)
            return _explain(conn, sql)
    finally:
        engine.dispose()


def _explain(conn: Connection, sql: str) -> str:
    sql = sql.replace("(__[POSTCOMPILE_withheld])", "('x')")
    bound = {"kind": 1, "limit": 9}
    rows = conn.execute(text(f"EXPLAIN QUERY PLAN {sql}"), bound)
    return "\n".join(row.detail for row in rows)


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (queue.KINDS, "kinds_queued"),
        (queue.ANY, "kinds_queued"),
        (queue.OF_KIND, "runs_queued"),
    ],
)
def test_a_claim_reads_the_indexes_of_the_queue_and_sorts_nothing(
    statement: ClauseElement, index: str
) -> None:
    plan = plan_of(str(statement.compile(dialect=sqlite.dialect())).replace("?", ":limit"))
    assert f"INDEX {index}" in plan
    assert "TEMP B-TREE" not in plan


async def test_runs_that_fit_nobody_hide_none_that_fits(api: Api) -> None:
    await api.beat(tags=["here"], resources={"cpu_cores": 2})
    for number in range(30):
        needs: Json = {"tags": ["there"]} if number % 2 else {"constraints": {"cpu": 3 + number}}
        await api.submit(priority=9, **needs)
    mine = [await api.submit(tags=["here"]), await api.submit(constraints={"cpu": 2})]
    mine.append(await api.submit(tags=["here"]))
    urgent = await api.submit(priority=8, tags=["here"])
    assert [run["id"] for run in await api.claim(max_runs=9)] == [urgent, *mine]


async def test_a_kind_of_runs_that_no_longer_fits_makes_way_for_others(api: Api) -> None:
    await api.beat(resources={"cpu_cores": 3})
    large = [await api.submit(constraints={"cpu": 2}) for _ in range(3)]
    small = [await api.submit(constraints={"cpu": 1}) for _ in range(3)]
    assert [run["id"] for run in await api.claim(max_runs=9)] == [large[0], small[0]]
    assert await api.claim(holding=[large[0], small[0]]) == []


async def test_a_run_that_waits_out_its_back_off_is_not_in_the_queue(api: Api) -> None:
    policy = {"max_attempts": 3, "backoff_s": 600}
    failed = await api.running(retry_policy=policy)
    behind = await api.submit()
    await api.event(failed, "FAILED", worker_id="w1", attempt=1)
    assert [run["id"] for run in await api.claim(max_runs=9)] == [behind]


async def test_a_large_run_gets_its_turn_though_small_ones_keep_coming(api: Api) -> None:
    cores: Json = {"resources": {"cpu_cores": 4}}
    await api.beat(**cores)
    running = [await api.submit(constraints={"cpu": 1}) for _ in range(4)]
    assert len(await api.claim(max_runs=4)) == 4
    large = await api.submit(constraints={"cpu": 4}, priority=6)
    with trio.fail_after(200):
        while large not in running:
            await api.submit(constraints={"cpu": 1})
            done = running.pop(0)
            await api.event(done, "STARTED", worker_id="w1", attempt=1)
            await api.event(done, "COMPLETED", worker_id="w1", attempt=1)
            claimed = await api.claim(max_runs=4, holding=running)
            running += [run["id"] for run in claimed]


async def waited(api: Api, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run have waited for long enough that capacity is kept for it."""
    monkeypatch.setattr(claims, "KEEP_AFTER_S", -1.0)
    assert (await api.run(run))["state"] == "PENDING"


async def test_what_a_large_run_does_not_lack_goes_to_others_meanwhile(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.beat(resources={"cpu_cores": 4, "ram_mb": 1000})
    first = await api.submit(constraints={"cpu": 2})
    held = await api.claim()
    large = await api.submit(constraints={"cpu": 4, "ram_mb": 600})
    await waited(api, large, monkeypatch)
    small = await api.submit(constraints={"cpu": 0.5})
    beside = await api.submit(constraints={"ram_mb": 400})
    too_much = await api.submit(constraints={"ram_mb": 100})
    anything = await api.submit()
    claimed = await api.claim(max_runs=9, holding=[first])
    assert [run["id"] for run in held] == [first]
    assert [run["id"] for run in claimed] == [beside, anything]
    await api.post(f"/runs/{large}/cancel")
    claimed = await api.claim(max_runs=9, holding=[first, beside, anything])
    assert [run["id"] for run in claimed] == [small, too_much]


async def test_capacity_is_kept_by_the_worker_that_can_have_room_first(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for worker in ("busy", "nearer"):
        await api.beat(worker, resources={"cpu_cores": 4})
    held: dict[str, list[str]] = {}
    for worker, cores in (("busy", 3), ("nearer", 1)):
        held[worker] = [await api.submit(constraints={"cpu": cores})]
        assert len(await api.claim(worker)) == 1
    large = await api.submit(constraints={"cpu": 4}, priority=9)
    await waited(api, large, monkeypatch)
    small = await api.submit(constraints={"cpu": 1})
    assert await api.claim("nearer", max_runs=9, holding=held["nearer"]) == []
    claimed = await api.claim("busy", max_runs=9, holding=held["busy"])
    assert [run["id"] for run in claimed] == [small]


async def test_a_waiting_worker_takes_what_was_held_back_once_a_large_run_is_cancelled(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.beat(resources={"cpu_cores": 2})
    first = await api.submit(constraints={"cpu": 1})
    await api.claim()
    large = await api.submit(constraints={"cpu": 2})
    await waited(api, large, monkeypatch)
    small = await api.submit(constraints={"cpu": 1})
    claimed: list[str] = []

    async def wait() -> None:
        claimed.extend(run["id"] for run in await api.claim(wait_s=60, holding=[first]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.1)
        assert claimed == []
        await api.post(f"/runs/{large}/cancel")
    assert claimed == [small]


async def test_what_fits_nobody_is_looked_at_once_a_worker_comes_that_can_have_it(
    api: Api,
) -> None:
    await api.beat(resources={"cpu_cores": 2})
    tagged = await api.submit(tags=["b", "a"], constraints={"cpu": 4})
    again = await api.submit(tags=["a", "b"], constraints={"cpu": 4})
    assert await api.claim(max_runs=9) == []
    claimed: list[str] = []

    async def wait() -> None:
        claimed.extend(run["id"] for run in await api.claim("w2", max_runs=9, wait_s=60))

    await api.beat("w2", resources={"cpu_cores": 8})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.1)
        await api.beat("w2", resources={"cpu_cores": 8}, tags=["a", "b", "c"])
    assert claimed == [tagged, again]


async def test_of_kinds_that_fit_the_best_run_of_all_comes_first(api: Api) -> None:
    await api.beat(resources={"cpu_cores": 100, "ram_mb": 1000})
    runs = [
        await api.submit(priority=priority, constraints=needs)
        for priority, needs in (
            (1, {"cpu": 1}),
            (3, {"ram_mb": 9}),
            (2, {"cpu": 1}),
            (3, {"cpu": 1}),
            (2, {"ram_mb": 9}),
        )
    ]
    order = [runs[index] for index in (1, 3, 2, 4, 0)]
    assert [run["id"] for run in await api.claim(max_runs=9)] == order


async def test_a_run_whose_priority_is_changed_changes_its_place(api: Api) -> None:
    await api.beat()
    first, second, third = [await api.submit() for _ in range(3)]
    await api.ask("PATCH", f"/runs/{third}", json={"priority": 9})
    await api.ask("PATCH", f"/runs/{first}", json={"priority": 1})
    assert [run["id"] for run in await api.claim(max_runs=9)] == [third, second, first]


async def test_no_worker_keeps_capacity_back_for_one_that_another_with_its_tags_must_have(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores: Json = {"resources": {"cpu_cores": 4}}
    await api.beat("idle", **cores)
    await api.beat("tagged", tags=["gpu"], **cores)
    held = [await api.submit(constraints={"cpu": 1}, tags=["gpu"])]
    assert len(await api.claim("tagged")) == 1
    large = await api.submit(constraints={"cpu": 4}, tags=["gpu"])
    await waited(api, large, monkeypatch)
    small = await api.submit(constraints={"cpu": 1})
    assert await api.claim("tagged", max_runs=9, holding=held) == []
    assert [run["id"] for run in await api.claim("idle", max_runs=9)] == [small]


async def test_a_worker_without_a_free_slot_is_not_the_nearest(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.beat("full", resources={"cpu_cores": 4}, max_concurrency=1)
    await api.submit()
    assert len(await api.claim("full")) == 1
    await api.beat("other", resources={"cpu_cores": 4}, max_concurrency=9)
    held = [await api.submit(constraints={"cpu": 1})]
    assert len(await api.claim("other")) == 1
    large = await api.submit(constraints={"cpu": 4})
    await waited(api, large, monkeypatch)
    await api.submit(constraints={"cpu": 1})
    assert await api.claim("other", max_runs=9, holding=held) == []
