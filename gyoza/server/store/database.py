"""The SQLite file: one writer at a time, readers beside it, all on disk before the answer."""

import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import trio
from outcome import Error, Outcome, Value, capture
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gyoza.server.errors import DatabaseError, NotReady
from gyoza.server.json_text import for_column
from gyoza.server.store.lock import DatabaseLock
from gyoza.server.store.reserve import Reserve
from gyoza.server.store.schema import SCHEMA_VERSION, UPGRADES, metadata
from gyoza.server.wakeups import Wakeups

T = TypeVar("T")

READERS = 4
MAX_BATCH = 32
"""Jobs in one write transaction: the first of them waits for the last."""

NEEDED = (3, 35, 0)
"""The first SQLite with RETURNING."""

BUSY_TIMEOUT_MS = 10_000  # another program may hold the file's lock: a backup, say


@dataclass
class Tx:
    """One write transaction.

    Attributes:
        conn: The connection, inside BEGIN IMMEDIATE.
        now: When it began, seconds since 1970.
        actor: The worker that writes, or None for anybody else.
        author: Whose API key this is done with, as `Key.author`; None for the server itself.
        wake: Keys to wake once the transaction is on disk.
    """

    conn: Connection
    now: float
    actor: str | None = None
    author: str | None = None
    wake: set[str] = field(default_factory=set[str])


@dataclass(eq=False)
class _Job:
    """A write that somebody waits for."""

    run: Callable[[Tx], object]
    actor: str | None
    author: str | None
    task: trio.lowlevel.Task


_Done = tuple[Outcome[Any], set[str]]
"""What became of a job, and what it wakes."""


class Database:
    """Runs functions on the database, in threads; each call is one transaction.

    Args:
        path: The SQLite file.
        wakeups: Gets what a transaction wakes, after its commit.
        clock: Returns seconds since 1970.

    Attributes:
        written_at: When a transaction was last on disk, by `time.monotonic`.
        write_error: Why the database did not take the last one; None if it did.
    """

    def __init__(self, path: Path, wakeups: Wakeups, clock: Callable[[], float]) -> None:
        self._wakeups = wakeups
        self._clock = clock
        # The transaction's kind decides: two engines, so that a pool never mixes them.
        self._writer = _engine(path, "BEGIN IMMEDIATE", 1)
        self._reader = _engine(path, "BEGIN", READERS + 1)
        self._reserve = Reserve(path)
        self._jobs: deque[_Job] = deque()
        self._writing = False
        self._write_limit = trio.CapacityLimiter(1)  # before the first job, and after the last
        self._read_limit = trio.CapacityLimiter(READERS)
        self._ping_limit = trio.CapacityLimiter(1)
        self._lock: DatabaseLock | None = None
        self.written_at = time.monotonic()  # it was opened just now
        self.write_error: str | None = None

    @classmethod
    async def open(cls, path: Path, wakeups: Wakeups, clock: Callable[[], float]) -> Self:
        """Open the file, made with its directory and tables where they are missing.

        Raises:
            DatabaseError: If that is not possible.
        """
        database = cls(path, wakeups, clock)
        try:
            database._lock = await trio.to_thread.run_sync(
                _prepare, path, database._writer, limiter=database._write_limit
            )
        except BaseException:
            database._dispose()
            raise
        return database

    async def write(
        self, job: Callable[[Tx], T], *, actor: str | None = None, author: str | None = None
    ) -> T:
        """Run `job` in a write transaction; return when it is on disk and its wake-ups are out.

        Jobs that come while a transaction is under way share the next one, so that one commit and
        one thread do for all of them; a job that raises undoes nothing but its own.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        waiting = _Job(job, actor, author, trio.lowlevel.current_task())
        self._jobs.append(waiting)
        if not self._writing:
            self._begin_batch()

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            if waiting not in self._jobs:
                return trio.lowlevel.Abort.FAILED  # it is being done
            self._jobs.remove(waiting)
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    def _begin_batch(self) -> None:
        self._writing = True
        batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), MAX_BATCH))]
        token = trio.lowlevel.current_trio_token()

        def deliver(done: Outcome[list[_Done]]) -> None:
            token.run_sync_soon(self._end_batch, batch, done)

        try:
            trio.lowlevel.start_thread_soon(partial(self._transact, batch), deliver)
        except RuntimeError:  # the machine has no thread left
            lacking = NotReady("The server's machine has no thread left for this; try again.")
            token.run_sync_soon(self._end_batch, batch, Error(lacking))

    def _end_batch(self, batch: list[_Job], done: Outcome[list[_Done]]) -> None:
        self._writing = False
        if self._jobs:
            self._begin_batch()
        if isinstance(done, Error):
            if isinstance(done.error, DBAPIError):
                self.write_error = str(done.error.orig)
            for job in batch:  # each with an outcome of its own: one serves once
                trio.lowlevel.reschedule(job.task, Error(done.error))
            return
        self.written_at, self.write_error = time.monotonic(), None
        for job, (result, wake) in zip(batch, done.unwrap(), strict=True):
            self._wakeups.post(wake)
            trio.lowlevel.reschedule(job.task, result)

    def _transact(self, batch: list[_Job]) -> list[_Done]:
        try:
            done = self._transact_once(batch)
        except DBAPIError as error:
            if not (_is_for_room(error) and self._reserve.give_free()):
                raise
            done = self._transact_once(batch)
        self._reserve.keep()
        return done

    def _transact_once(self, batch: list[_Job]) -> list[_Done]:
        with self._writer.begin() as conn:
            return [self._do(conn, job, alone=len(batch) == 1) for job in batch]

    def _do(self, conn: Connection, job: _Job, *, alone: bool) -> _Done:
        tx = Tx(conn, self._clock(), job.actor, job.author)
        if alone:
            return Value(job.run(tx)), tx.wake
        conn.exec_driver_sql("SAVEPOINT job")
        result = capture(job.run, tx)
        if isinstance(result, Error):
            if isinstance(result.error, DBAPIError) and _is_for_room(result.error):
                raise result.error  # with it the whole transaction may be gone
            tx.wake.clear()
            conn.exec_driver_sql("ROLLBACK TO job")
        conn.exec_driver_sql("RELEASE job")
        return result, tx.wake

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Run `job` on one snapshot of the database."""

        def look() -> T:
            with self._reader.begin() as conn:
                return job(conn)

        return await trio.to_thread.run_sync(look, limiter=self._read_limit)

    async def ping(self) -> None:
        """Do the least that shows that the database answers, however many read or write."""

        def look() -> None:
            with self._reader.begin() as conn:
                conn.exec_driver_sql("SELECT 1").scalar_one()

        await trio.to_thread.run_sync(look, limiter=self._ping_limit)

    async def aclose(self) -> None:
        """Close all connections; call it when no transaction is under way."""
        with trio.move_on_after(BUSY_TIMEOUT_MS / 1000, shield=True):
            await trio.to_thread.run_sync(self._dispose, limiter=self._write_limit)

    def _dispose(self) -> None:
        self._reader.dispose()
        self._writer.dispose()
        if self._lock:
            self._lock.release()


def prove_writable(tx: Tx) -> None:
    """Write something that changes nothing, so that the commit tells whether writes go."""
    tx.conn.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")


def _is_for_room(error: DBAPIError) -> bool:
    """Whether a full disk may be what the database met; of its files it says less than that."""
    told = getattr(error.orig, "sqlite_errorcode", 0)
    return told & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _engine(path: Path, begin: str, size: int) -> Engine:
    # Each connection is used by one thread at a time, though not always the same one.
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # in errors that are logged: they may hold secrets
        json_serializer=for_column,
        connect_args={"check_same_thread": False},
    )

    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin by `begin`, not by the driver
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def on_begin(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _prepare(path: Path, writer: Engine) -> DatabaseLock:
    """Open the database, which nobody else may use from now on."""
    if sqlite3.sqlite_version_info < NEEDED:
        raise DatabaseError(
            f"gyoza needs SQLite {'.'.join(map(str, NEEDED))} or later, and this Python has "
            f"{sqlite3.sqlite_version}; use one that was built with a later one."
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = DatabaseLock(path)
    except OSError as error:
        raise _cannot_open(path, error) from error
    try:
        # SQLite gives its other files the same mode: variables of runs are nobody else's business.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with writer.begin() as conn:
            found: int = conn.exec_driver_sql("PRAGMA user_version").scalar_one()
            if found not in (0, *UPGRADES, SCHEMA_VERSION):
                raise DatabaseError(
                    f"The database {path} has format {found}, which this version of gyoza does "
                    "not know; use the version that made it, or another file."
                )
            metadata.create_all(conn)
            for version in range(found or SCHEMA_VERSION, SCHEMA_VERSION):
                for statement in UPGRADES[version]:
                    conn.exec_driver_sql(statement)
            for index in (index for table in metadata.sorted_tables for index in table.indexes):
                index.create(conn, checkfirst=True)
            conn.exec_driver_sql("DELETE FROM texts WHERE run_id IS NULL")  # a server was killed
            conn.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
    except BaseException as error:
        lock.release()
        if isinstance(error, OSError | SQLAlchemyError | sqlite3.Error):
            raise _cannot_open(path, error) from error
        raise
    return lock


def _cannot_open(path: Path, error: Exception) -> DatabaseError:
    return DatabaseError(
        f"The database {path} cannot be opened ({_cause(error)}); "
        "set GYOZA_DATABASE_URL to a file that can be written."
    )


def _cause(error: Exception) -> Any:
    if isinstance(error, OSError):
        return error.strerror
    return getattr(error, "orig", None) or error
