"""What the server stands on in a chaos run: its clock, its database's file and disk, its port."""

import random
import socket
import sqlite3
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.chaos.clock import LEAP_S, Clock, find_library, forget
from tests.chaos.database import Database, open_database
from tests.chaos.noise import Noise, what_is_sent

HANG_S = 200.0


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    library = find_library()
    if library is None:
        pytest.skip("faketime is not installed")
    return Clock(library, tmp_path / "clock")


async def told_by(clock: Clock) -> float:
    """What a program tells that goes by a clock."""
    script = "import os, time; print(time.time()); print(os.getpid())"
    command = [sys.executable, "-c", script]
    done = await trio.run_process(command, capture_stdout=True, env=clock.environment)
    told, pid = done.stdout.split()
    forget([int(pid)])
    return float(told)


async def test_a_clock_leaps_and_comes_back(clock: Clock) -> None:
    assert abs(await told_by(clock) - time.time()) < HANG_S
    with trio.fail_after(HANG_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.leap, -LEAP_S, HANG_S)
            await trio.testing.wait_all_tasks_blocked()
            assert abs(await told_by(clock) + LEAP_S - time.time()) < HANG_S
            nursery.cancel_scope.cancel()
    await clock.leap(LEAP_S, 0.0)
    assert abs(await told_by(clock) - time.time()) < HANG_S


async def test_what_a_clock_told_during_a_leap_is_corrected(tmp_path: Path) -> None:
    clock = Clock(None, tmp_path / "clock")
    now = datetime.now(UTC)
    leap = timedelta(seconds=LEAP_S)
    assert clock.correct(now + leap) == now + leap
    await clock.leap(LEAP_S, 0.0)
    assert clock.correct(now + leap) == now
    assert clock.correct(now) == now
    assert clock.correct(now - leap) == now - leap


def test_without_the_library_a_clock_is_an_ordinary_one(tmp_path: Path) -> None:
    clock = Clock(None, tmp_path / "clock")
    assert not clock.can_leap
    assert clock.environment == {}


def insert(database: Database) -> None:
    with closing(sqlite3.connect(database.file, timeout=0)) as connection, connection:
        connection.execute("INSERT INTO t VALUES (zeroblob(5000))").close()


def make_table(database: Database) -> None:
    with closing(sqlite3.connect(database.file)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute("CREATE TABLE t (c)").close()


async def test_nothing_is_written_to_a_locked_database(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        make_table(database)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.lock, HANG_S)
            with trio.fail_after(HANG_S):
                while not database.has_trouble():
                    await trio.lowlevel.checkpoint()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                insert(database)
            nursery.cancel_scope.cancel()
        insert(database)


async def test_a_server_that_starts_soon_after_trouble_may_have_met_it(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        make_table(database)
        assert not database.has_trouble()
        await database.lock(0.0)
        assert database.has_trouble()


async def test_nothing_is_written_to_a_full_disk(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        if not database.can_be_full:
            pytest.skip("no disk can be mounted here")
        make_table(database)
        insert(database)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.fill, HANG_S)
            with trio.fail_after(HANG_S):
                while await trio.to_thread.run_sync(_takes_more, database):
                    pass
            nursery.cancel_scope.cancel()
        insert(database)


def _takes_more(database: Database) -> bool:
    try:
        insert(database)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return False
    return True


async def test_the_database_is_kept_when_its_disk_goes(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        make_table(database)
    assert not database.disk.is_mount()
    insert(database)


def test_noise_is_the_same_for_a_seed() -> None:
    def noise(seed: int) -> list[list[bytes]]:
        rng = random.Random(seed)
        return [what_is_sent(rng) for _ in range(200)]

    assert noise(1) == noise(1) != noise(2)
    assert any(b"HTTP/1.1" in b"".join(pieces) for pieces in noise(1))


async def test_noise_calls_again_and_again_and_counts_the_answers(mock_clock: MockClock) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    mock_clock.rate = 10.0
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, refuse, listeners)
        with trio.fail_after(HANG_S):
            calls, answers = await Noise(listeners[0].socket.getsockname()[1]).make(1, 10.0)
        nursery.cancel_scope.cancel()
    assert calls > 0
    assert set(answers) <= {400}


async def test_noise_at_a_port_where_nobody_listens_ends_all_the_same(
    mock_clock: MockClock,
) -> None:
    mock_clock.rate = 10.0
    with free_port() as port, trio.fail_after(HANG_S):
        assert await Noise(port).make(1, 10.0) == (0, {})


@contextmanager
def free_port() -> Generator[int]:
    """A port that is taken, so that nobody else takes it, and that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
