"""What systemd is told, on a real datagram socket."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.socket

from gyoza.testing import FakeContainerEngine
from gyoza.worker.runner.main import work_until_told
from gyoza.worker.runner.readiness import Obstacle
from gyoza.worker.runner.supervisor import open_worker, supervise
from gyoza.worker.runner.systemd import Systemd, keep_informed
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import Resources, WorkerContext
from tests.support.small_server import SmallServer
from tests.worker.programs import sleep_for_ever


class Manager:
    """Receives what a service manager would."""

    def __init__(self, channel: trio.socket.SocketType, address: str) -> None:
        self._channel = channel
        self.address = address

    async def next(self) -> list[str]:
        return (await self._channel.recv(65536)).decode().splitlines()

    async def until(self, line: str, without: str = "") -> list[str]:
        """Return the first message that has a line like this one, and none like the other."""
        while True:
            told = "\n".join(await self.next())
            if line in told and (not without or without not in told):
                return told.splitlines()


@pytest.fixture(params=["path", "abstract"])
async def manager(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Manager]:
    path = str(tmp_path / "notify")
    name = f"@gyoza-test-{os.getpid()}"
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as channel:
        await channel.bind(path if request.param == "path" else "\0" + name[1:])
        yield Manager(channel, path if request.param == "path" else name)


@asynccontextmanager
async def informing_worker(
    systemd: Systemd, settings: WorkerSettings, engine: FakeContainerEngine
) -> AsyncGenerator[Worker]:
    """Run a worker that keeps systemd informed; it drains at the end of the block."""
    context = WorkerContext(resources=Resources())
    async with (
        open_worker(settings, context=context, engine=engine) as worker,
        trio.open_nursery() as process,
    ):
        process.start_soon(keep_informed, systemd, worker)
        async with trio.open_nursery() as working:
            working.start_soon(supervise, worker)
            yield worker
            worker.drain()
        process.cancel_scope.cancel()


@pytest.fixture
def brisk(settings: WorkerSettings) -> WorkerSettings:
    return replace(settings, heartbeat_s=0.02, grace_s=0, drain_timeout_s=0)


async def test_ready_is_told_once_registered_and_stopping_at_the_signal(
    manager: Manager, server: SmallServer, engine: FakeContainerEngine, brisk: WorkerSettings
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    server.refuse("POST", "/workers/heartbeat", 503, "Away.", times=10_000)
    with trio.fail_after(200):
        # Not so brisk that a heartbeat that is a little late would be told.
        calm = replace(brisk, heartbeat_s=0.5)
        async with informing_worker(Systemd(manager.address), calm, engine) as worker:
            assert await manager.next() == ["STATUS=0 runs, engine ok, waiting for the server"]
            server.refuse("POST", "/workers/heartbeat", 503, "Away.", times=0)
            assert (await manager.until("READY=1"))[0] == "READY=1"
            await server.wait_for_event("STARTED", "run-1")
            worker.drain()
            told = await manager.until("STOPPING=1")
            assert told == ["STOPPING=1", "STATUS=1 run, engine ok, draining"]


async def test_without_a_watchdog_nothing_is_fed(
    manager: Manager, server: SmallServer, engine: FakeContainerEngine, brisk: WorkerSettings
) -> None:
    with trio.fail_after(200):
        async with informing_worker(Systemd(manager.address), brisk, engine):
            told = await manager.next()
            while told[0] != "READY=1":
                assert "WATCHDOG=1" not in told
                told = await manager.next()


async def test_the_watchdog_is_fed_only_while_the_server_was_reached_recently(
    manager: Manager, server: SmallServer, engine: FakeContainerEngine, brisk: WorkerSettings
) -> None:
    systemd = Systemd(manager.address, watchdog_s=0.02)
    with trio.fail_after(200):
        async with informing_worker(systemd, brisk, engine) as worker:
            await worker.ready.wait()
            await manager.until("WATCHDOG=1", without="waiting")
            server.refuse("POST", "/workers/heartbeat", 503, "Away.", times=10_000)
            await manager.until("server away", without="WATCHDOG=1")
            server.refuse("POST", "/workers/heartbeat", 503, "Away.", times=0)
            await manager.until("WATCHDOG=1", without="server away")
            server.refuse("POST", "/workers/heartbeat", 503, "Away.", times=10_000)
            await manager.until("server away", without="WATCHDOG=1")
            worker.leaving.set()  # a worker that leaves ends at its own deadline
            told = await manager.until("WATCHDOG=1")
            assert "server away" in told[0]


async def test_the_status_names_what_is_wrong(
    manager: Manager, server: SmallServer, engine: FakeContainerEngine, brisk: WorkerSettings
) -> None:
    with trio.fail_after(200):
        async with informing_worker(Systemd(manager.address, 0.02), brisk, engine) as worker:
            await worker.ready.wait()
            engine.unavailable = True
            worker.engine_watch.doubt()
            worker.readiness.block(Obstacle.DISK)
            await manager.until("STATUS=0 runs, engine unavailable, disk low")


async def test_a_manager_that_does_not_listen_is_no_reason_to_stop(
    server: SmallServer, engine: FakeContainerEngine, brisk: WorkerSettings, tmp_path: Path
) -> None:
    engine.add_image("quick")
    server.submit("run-1", "quick")
    with trio.fail_after(200):
        async with informing_worker(Systemd(str(tmp_path / "nobody"), 0.02), brisk, engine):
            await server.wait_for_event("COMPLETED", "run-1")


@pytest.mark.docker
async def test_a_workers_process_tells_who_started_it(
    manager: Manager,
    server: SmallServer,
    brisk: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            worker: Worker = await nursery.start(work_until_told, brisk)
            await manager.until("READY=1")
            await manager.until("WATCHDOG=1")
            worker.drain()
            await manager.until("STOPPING=1")


def test_who_wants_to_be_told_is_read_from_the_environment() -> None:
    here = str(os.getpid())
    cases: list[tuple[dict[str, str], Systemd | None]] = [
        ({}, None),
        ({"NOTIFY_SOCKET": ""}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, None),
        ({"NOTIFY_SOCKET": "/run/n"}, Systemd("/run/n")),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "3000000"}, Systemd("@n", 3.0)),
        (
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": here},
            Systemd("/n", 0.5),
        ),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, Systemd("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, Systemd("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, Systemd("/n")),
    ]
    for environ, systemd in cases:
        assert Systemd.from_env(environ) == systemd
