"""Retention: what goes once it has been over for long enough, and what stays."""

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy.exc import OperationalError

from gyoza.models import EventDelivery, EventType, OpRun
from gyoza.server import retention as retention_service
from gyoza.server.json_text import EMPTY
from gyoza.server.retention import run_retention
from gyoza.server.store import (
    claims,
    logs,
    op_events,
    reports,
    retention,
    submission,
    workers,
)
from gyoza.server.store.database import Database, Tx
from gyoza.server.store.texts import Stored
from gyoza.server.wakeups import Wakeups

from .api import Json, serving, settings_in

KEEP_S = 1000.0
TABLES = ("runs", "run_data", "attempts", "events", "feed", "log_chunks")


class Store:
    """A database on a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.database: Database

    async def submit(self, key: str | None = None) -> str:
        asked = OpRun(id="", image="a", event_delivery=EventDelivery("t", {}))
        make = partial(submission.create_run, asked=asked, inputs=Stored(EMPTY, 2))
        once = submission.Once(key, b"digest") if key else None
        run = await self.database.write(lambda tx: make(tx, once=once))
        return run.id

    async def end(self, run: str, chunks: int = 1) -> str:
        """Let a worker run it to its end, with some output."""
        told: Json = {"worker_id": "w", "resources": {}, "tags": [], "running_ops": []}

        def act(tx: Tx) -> None:
            workers.beat(tx, {**told, "draining": False}, 60, claiming=False)
            claims.claim(tx, claims.Wish("w", 1, []), 60)
            reports.add_event(tx, run, op_events.Report(EventType.STARTED, "", EMPTY, "w", 1))
            for number in range(chunks):
                logs.append_log(tx, run, number, b"x", "w", 1)
            reports.add_event(tx, run, op_events.Report(EventType.COMPLETED, "", EMPTY, "w", 1))

        await self.database.write(act)
        return run

    async def prune(self) -> float:
        due: float = await self.database.write(lambda tx: retention.prune(tx, KEEP_S))
        return due

    async def count(self) -> dict[str, int]:
        """Return how many rows of each table there are."""
        count = "SELECT count(*) FROM {}"

        def look(conn: Any) -> dict[str, int]:
            return {t: conn.exec_driver_sql(count.format(t)).scalar_one() for t in TABLES}

        found: dict[str, int] = await self.database.read(look)
        return found


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store, None]:
    async with opened(tmp_path) as store:
        yield store


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[Store, None]:
    store = Store()
    store.database = await Database.open(path / "x.sqlite3", Wakeups(), lambda: store.now)
    try:
        yield store
    finally:
        await store.database.aclose()


async def test_an_old_run_goes_with_all_that_is_its(store: Store) -> None:
    await store.end(await store.submit())
    before = await store.count()
    assert min(before.values()) > 0
    store.now += KEEP_S / 2
    await store.end(await store.submit())
    store.now += KEEP_S / 2
    assert await store.prune() == store.now
    assert await store.count() == before  # those of the younger one
    assert await store.prune() == store.now + KEEP_S / 2


async def test_runs_that_have_not_ended_stay_however_old_they_are(store: Store) -> None:
    await store.submit()
    store.now += 100 * KEEP_S
    assert await store.prune() == store.now + KEEP_S
    assert (await store.count())["runs"] == 1


async def test_a_key_makes_a_new_run_once_its_run_is_gone(store: Store) -> None:
    old = await store.submit("key")
    assert await store.submit("key") == old
    await store.end(old)
    store.now += KEEP_S
    await store.prune()
    assert await store.submit("key") != old


async def test_a_run_that_is_retried_stays(store: Store) -> None:
    run = await store.submit()
    await store.database.write(lambda tx: reports.cancel(tx, run))
    store.now += KEEP_S
    await store.database.write(lambda tx: reports.retry(tx, run))
    await store.prune()
    assert (await store.count())["runs"] == 1


@pytest.mark.parametrize(
    ("bound", "value", "batches"), [("MAX_RUNS", 2, 3), ("MAX_EVENTS", 4, 3), ("MAX_CHUNKS", 4, 4)]
)
async def test_many_old_runs_go_in_small_pieces(
    store: Store, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, batches: int
) -> None:
    monkeypatch.setattr(retention, bound, value)
    for _ in range(5):
        await store.end(await store.submit(), chunks=3 if bound == "MAX_CHUNKS" else 1)
    store.now += KEEP_S
    left = [await store.count()]
    while await store.prune() == store.now:
        left.append(await store.count())
        assert left[-1] != left[-2]
    assert len(left) == batches + 1
    assert set(left[-1].values()) == {0}


async def test_runs_that_end_one_after_the_other_are_deleted_together(store: Store) -> None:
    await store.end(await store.submit())
    store.now += KEEP_S - 1
    assert await store.prune() == store.now + retention.EVERY_S


async def test_a_cursor_from_before_goes_on_after_what_was_deleted(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, retention_days=1)
    async with serving(settings) as api:
        run = await api.running(event_delivery={"topic": "t"})
        await api.event(run, "COMPLETED", worker_id="w1", attempt=1)
        page = await api.get("/events", topic="t", after="0")
    age(tmp_path, days=2)
    async with serving(settings) as api:
        await api.get(f"/runs/{run}", 404)
        await api.running(event_delivery={"topic": "t"})
        news = await api.get("/events", topic="t", after=page["cursor"])
        assert [item["event"]["type"] for item in news["data"]] == ["ASSIGNED", "STARTED"]


@pytest.mark.parametrize("days", [0, 3])
async def test_runs_stay_for_as_long_as_was_said(tmp_path: Path, days: float) -> None:
    settings = settings_in(tmp_path, retention_days=days)
    async with serving(settings) as api:
        run = await api.submit()
        await api.post(f"/runs/{run}/cancel")
    age(tmp_path, days=2)
    async with serving(settings) as api:
        assert (await api.run(run))["state"] == "CANCELLED"


def age(directory: Path, days: float) -> None:
    """Make all runs older."""
    with closing(sqlite3.connect(directory / "server.sqlite3")) as connection, connection:
        connection.execute("UPDATE runs SET updated_at = updated_at - ?", (days * 86400,))


async def test_the_service_goes_on_after_the_database_did_not_take_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = await store.end(await store.submit())
    store.now += KEEP_S
    monkeypatch.setattr("gyoza.server.repeat.FIRST_S", 0.0)
    write, calls = store.database.write, iter([OperationalError("", {}, Exception("locked"))])

    async def failing_once(job: Any) -> Any:
        if error := next(calls, None):
            raise error
        return await write(job)

    monkeypatch.setattr(store.database, "write", failing_once)
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                run_retention, store.database, lambda: store.now, KEEP_S, lambda: store.now
            )
            while (await store.count())["runs"]:
                pass
            nursery.cancel_scope.cancel()
    assert run
    assert "locked" in caplog.text


async def test_nothing_is_deleted_for_a_day_after_the_clock_has_leapt(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await store.end(await store.submit())
    steady, looks = [0.0], trio.Semaphore(0)

    async def look(wait_s: float) -> None:
        steady[0] += wait_s
        store.now += wait_s if looks.value else 365 * 86400.0
        looks.release()
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("gyoza.server.repeat.trio.sleep", look)
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                run_retention, store.database, lambda: store.now, KEEP_S, lambda: steady[0]
            )
            for _ in range(20):
                await looks.acquire()
                if steady[0] < retention_service.SETTLE_S:
                    assert (await store.count())["runs"]
            while (await store.count())["runs"]:
                await looks.acquire()
            nursery.cancel_scope.cancel()
    assert "The clock has leapt by" in caplog.text
    assert steady[0] >= retention_service.SETTLE_S
