"""Writes that come at once: one transaction for all that wait, and each answered for itself."""

import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy.exc import IntegrityError
from trio.testing import wait_all_tasks_blocked

from gyoza.server.errors import NotReady
from gyoza.server.store import database as database_module
from gyoza.server.store.database import Database, Tx
from gyoza.server.wakeups import Wakeups

Answers = dict[str, Any]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    database = await Database.open(tmp_path / "x.sqlite3", Wakeups(), lambda: 0.0)
    yield database
    await database.aclose()


@asynccontextmanager
async def waiting(
    database: Database, jobs: Mapping[str, Callable[[Tx], object]]
) -> AsyncGenerator[tuple[Answers, trio.Nursery]]:
    """Have jobs wait behind a transaction that ends with the block; their answers are there after.

    A job that raises answers with its error.
    """
    answers: Answers = {}
    begun, gate = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def hold(tx: Tx) -> None:
        token.run_sync_soon(begun.set)
        assert gate.wait(60)

    async def write(name: str, job: Callable[[Tx], object]) -> None:
        try:
            answers[name] = await database.write(job)
        except (ValueError, IntegrityError) as error:
            answers[name] = error

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.write, hold)
            await begun.wait()
            async with trio.open_nursery() as writes:
                for name, job in jobs.items():
                    writes.start_soon(write, name, job)
                    await wait_all_tasks_blocked()
                try:
                    yield answers, writes
                finally:
                    gate.set()


def transaction_of(tx: Tx) -> object:
    return tx.conn.get_transaction()


def adding(name: str, error: ValueError | None = None) -> Callable[[Tx], None]:
    def add(tx: Tx) -> None:
        tx.conn.exec_driver_sql(
            "INSERT INTO changes (worker_id, run_id, state, time) VALUES (?, '', '', 0)", (name,)
        )
        tx.wake.add(name)
        if error:
            raise error

    return add


async def added(database: Database) -> list[str]:
    names = await database.read(
        lambda conn: (
            conn.exec_driver_sql("SELECT worker_id FROM changes ORDER BY seq").scalars().all()
        )
    )
    return list(names)


async def test_writes_that_wait_share_a_transaction_in_their_order(database: Database) -> None:
    jobs = {name: adding(name) for name in "abc"}
    async with waiting(database, {"x": transaction_of, **jobs, "y": transaction_of}) as (found, _):
        pass
    assert found["x"] is found["y"] is not None
    assert await added(database) == ["a", "b", "c"]


async def test_no_more_share_one_than_may(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "MAX_BATCH", 2)
    async with waiting(database, dict.fromkeys("abc", transaction_of)) as (found, _):
        pass
    assert found["a"] is found["b"] is not found["c"]


async def test_a_job_that_fails_undoes_its_own_and_wakes_nobody(tmp_path: Path) -> None:
    wakeups = Wakeups()
    database = await Database.open(tmp_path / "x.sqlite3", wakeups, lambda: 0.0)
    error = ValueError("no")
    jobs = {"a": adding("a"), "b": adding("b", error), "c": adding("c")}
    with wakeups.watch("b") as news, wakeups.watch("c") as others:
        async with waiting(database, jobs) as (found, _):
            pass
        assert found == {"a": None, "b": error, "c": None}
        assert await added(database) == ["a", "c"]
        with trio.fail_after(200):
            await others.wait()
        with trio.move_on_after(0):
            await news.wait()
            pytest.fail("woken although nothing was written")
    await database.aclose()


async def test_who_is_cancelled_while_waiting_writes_nothing(database: Database) -> None:
    async with waiting(database, {"a": adding("a")}) as (_, writes):
        writes.cancel_scope.cancel()
        await wait_all_tasks_blocked()
    await database.write(adding("b"))
    assert await added(database) == ["b"]


async def test_who_is_cancelled_in_the_middle_learns_what_was_written(database: Database) -> None:
    begun, token = trio.Event(), trio.lowlevel.current_trio_token()
    gate = threading.Event()

    def job(tx: Tx) -> str:
        token.run_sync_soon(begun.set)
        assert gate.wait(60)
        adding("a")(tx)
        return "written"

    async def write() -> None:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel, scope)
            assert await database.write(job) == "written"
        assert not scope.cancelled_caught

    async def cancel(scope: trio.CancelScope) -> None:
        await begun.wait()
        scope.cancel()
        gate.set()

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
    assert await added(database) == ["a"]


def break_commit(tx: Tx) -> None:
    """Write what SQLite finds fault with at the end only."""
    tx.conn.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    tx.conn.exec_driver_sql("INSERT INTO run_data VALUES ('no such run', '{}', '{}', '{}')")


async def test_all_who_share_a_transaction_that_fails_are_told(database: Database) -> None:
    jobs = {"a": adding("a"), "b": break_commit, "c": adding("c")}
    async with waiting(database, jobs) as (found, _):
        pass
    assert {name: type(answer) for name, answer in found.items()} == dict.fromkeys(
        jobs, IntegrityError
    )
    await database.write(adding("d"))
    assert await added(database) == ["d"]


async def test_a_machine_without_a_thread_left_fails_what_waits_and_nothing_after(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_args: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("trio.lowlevel.start_thread_soon", lacking)
        with trio.fail_after(200), pytest.raises(NotReady, match="no thread left"):
            await database.write(adding("a"))
    await database.write(adding("b"))
    assert await added(database) == ["b"]
