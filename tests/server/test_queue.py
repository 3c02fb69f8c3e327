"""The queue: what a claim finds among very many runs, and what it does not look at."""

import pytest
from sqlalchemy import ClauseElement, Connection, create_engine, text
from sqlalchemy.dialects import sqlite

from gyoza.server.store import queue
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
