"""While the engine is away or a disk is full, nothing is claimed; heartbeats say so."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gyoza.client import AsyncGyozaClient
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from gyoza.testing import FakeContainerEngine, open_fake_engine
from gyoza.worker.errors import EngineError
from gyoza.worker.policy import ContainerPolicy
from gyoza.worker.runner import disk_watch, engine_watch
from gyoza.worker.runner.disk_watch import DiskWatch, Room
from gyoza.worker.runner.engine_watch import EngineWatch
from gyoza.worker.runner.readiness import Obstacle, Readiness
from tests.support.proxied import with_news
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker


class Disks:
    """How much room there seems to be, by directory; those not named have plenty."""

    def __init__(self) -> None:
        self.free_mb: dict[str, float] = {}
        self.hidden: set[str] = set()
        self.inodes: tuple[int, int] = (1000, 10_000)

    def room(self, directory: Path) -> Room:
        if str(directory) in self.hidden:
            raise PermissionError(13, "Permission denied")
        return Room(self.free_mb.get(str(directory), 10_000), *self.inodes)


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> Disks:
    disks = Disks()
    monkeypatch.setattr(disk_watch, "free_room", disks.room)
    monkeypatch.setattr(disk_watch, "PERIOD_S", 0.01)
    return disks


@asynccontextmanager
async def watched_engine() -> AsyncGenerator[tuple[FakeContainerEngine, Readiness, EngineWatch]]:
    """An engine with a watch that asks it and listens to it."""
    async with open_fake_engine() as engine, trio.open_nursery() as nursery:
        engine.networks.add("ours")
        readiness = Readiness()
        watch = EngineWatch(engine, readiness, ContainerPolicy(network="ours"))
        nursery.start_soon(watch.serve)
        nursery.start_soon(watch.hear_exits)
        yield engine, readiness, watch
        nursery.cancel_scope.cancel()


async def test_claims_wait_until_every_obstacle_is_gone() -> None:
    readiness = Readiness()
    await readiness.wait()
    readiness.block(Obstacle.ENGINE)
    readiness.block(Obstacle.DISK)
    passed = trio.Event()

    async def pass_by() -> None:
        await readiness.wait()
        passed.set()

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_by)
            readiness.unblock(Obstacle.ENGINE)
            await wait_all_tasks_blocked()
            assert not passed.is_set()
            readiness.unblock(Obstacle.DISK)


async def test_the_engine_watch_says_once_that_the_engine_goes_and_that_it_is_back(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched_engine() as (engine, readiness, watch):
        await readiness.wait({Obstacle.ENGINE})
        with caplog.at_level(logging.INFO):
            engine.unavailable = True
            await trio.sleep(25)
            assert not watch.up
            assert readiness.blocked_by(Obstacle.ENGINE)
            engine.unavailable = False
            await readiness.wait({Obstacle.ENGINE})
        await readiness.wait()
        assert watch.up
        await trio.sleep(25)
    assert caplog.text.count("Nothing is claimed") == 1
    assert caplog.text.count("is well again") == 1


async def test_an_engine_that_has_lost_a_network_that_all_containers_need_is_not_well(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched_engine() as (engine, readiness, watch):
        engine.networks.discard("ours")
        await trio.sleep(25)
        assert not watch.well
        assert caplog.text.count("has no network ours") == 1
        engine.networks.add("ours")
        await readiness.wait({Obstacle.ENGINE})
        assert watch.well


async def test_an_engine_that_is_frozen_counts_as_away_after_five_seconds(
    autojump_clock: MockClock,
) -> None:
    async with watched_engine() as (engine, readiness, watch):
        with engine.hold("info") as gate:
            await gate.reached.wait()
            asked_at = trio.current_time()
            await trio.sleep(4.9)
            assert watch.up
            await trio.sleep(0.2)
            assert not watch.up
        await readiness.wait({Obstacle.ENGINE})
        assert trio.current_time() - asked_at < engine_watch.PERIOD_S


async def test_an_engine_that_stops_telling_of_exits_is_asked_at_once_each_time(
    autojump_clock: MockClock,
) -> None:
    async with watched_engine() as (engine, readiness, watch):
        for _ in range(3):
            await trio.sleep(1.5 * engine_watch.PERIOD_S)
            gone_at = trio.current_time()
            engine.unavailable = True
            while watch.up:
                await readiness.changed.wait()
            assert trio.current_time() == gone_at
            engine.unavailable = False
            await readiness.wait({Obstacle.ENGINE})


async def test_a_doubt_has_the_engine_asked_at_once(autojump_clock: MockClock) -> None:
    async with watched_engine() as (engine, readiness, watch):
        engine.failures["info"] = EngineError("Broken.")
        doubted_at = trio.current_time()
        with readiness.required() as scope:
            watch.doubt()
            await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == doubted_at


async def test_a_heartbeat_says_at_once_that_the_engine_goes_and_that_it_is_back(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    with trio.fail_after(200):
        async with start_worker(heartbeat_s=60) as worker:
            engine.unavailable = True
            worker.engine_watch.doubt()
            await server.wait_until(lambda: server.heartbeats[-1]["engine"] == "unavailable")
            engine.unavailable = False
            worker.engine_watch.doubt()
            await server.wait_until(lambda: server.heartbeats[-1]["engine"] == "ok")


async def test_low_disk_holds_claims_back_and_is_told_once(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    disks: Disks,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("quick")
    data_root = (await engine.info()).data_root
    disks.free_mb[data_root] = 99
    with trio.fail_after(200), caplog.at_level(logging.INFO):
        async with start_worker(heartbeat_s=0.01, min_free_mb=100):
            server.submit("run-1", "quick")
            await server.wait_until(lambda: len(server.heartbeats) > 5)
            assert server.heartbeats[-1]["disk"] == "low"
            disks.free_mb[data_root] = 105  # too near to the limit to count as enough
            seen = len(server.heartbeats)
            await server.wait_until(lambda: len(server.heartbeats) > seen + 5)
            assert "POST /workers/w1/claim" not in server.requests
            disks.free_mb[data_root] = 111
            await server.wait_for_event("COMPLETED", "run-1")
            await server.wait_until(lambda: server.heartbeats[-1]["disk"] == "ok")
    assert caplog.text.count(f"Only 99 MB are free on the disk of {data_root}") == 1
    assert caplog.text.count("room on the disks again") == 1


async def test_the_work_directorys_disk_counts_and_one_that_cannot_be_looked_at_does_not(
    disks: Disks, tmp_path: Path
) -> None:
    readiness = Readiness()
    disks.free_mb[str(tmp_path)] = 5
    disks.hidden = {"/elsewhere"}
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            watch = DiskWatch(Path("/elsewhere"), tmp_path, 10, readiness)
            await nursery.start(watch.serve)
            assert watch.low
            disks.hidden.add(str(tmp_path))
            await readiness.wait()
            nursery.cancel_scope.cancel()


async def test_few_inodes_are_little_room(disks: Disks, tmp_path: Path) -> None:
    readiness = Readiness()
    disks.inodes = (199, 10_000)
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            watch = DiskWatch(tmp_path, tmp_path, 10, readiness)
            await nursery.start(watch.serve)
            assert watch.low
            disks.inodes = (0, 0)  # a file system that does not count them
            await readiness.wait()
            nursery.cancel_scope.cancel()


async def test_a_least_of_0_looks_at_no_disk(disks: Disks, tmp_path: Path) -> None:
    disks.free_mb[str(tmp_path)] = 0
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            watch = DiskWatch(tmp_path, tmp_path, 0, Readiness())
            await nursery.start(watch.serve)
    assert not watch.low


@pytest.fixture
async def real_server(tmp_path: Path) -> AsyncGenerator[str]:
    settings = ServerSettings(
        port=0, database_url=f"sqlite:///{tmp_path}/server.sqlite3", api_key="key"
    )
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve, settings)
        nursery.cancel_scope.cancel()


async def test_a_claim_that_waits_at_the_server_is_given_up_when_the_engine_goes(
    real_server: str, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    with trio.fail_after(200):
        async with (
            AsyncGyozaClient(real_server, "key") as client,
            start_worker(server_url=real_server, heartbeat_s=0.02) as worker,
        ):
            engine.unavailable = True
            worker.engine_watch.doubt()
            while (await client.get_worker("w1"))["engine"] != "unavailable":
                await worker.contact.answered.wait()
            run = await client.create_run("quick", {})
            answered = worker.contact.answered
            await answered.wait()
            assert (await client.get_run(run["id"]))["state"] == "PENDING"
            engine.unavailable = False
            worker.engine_watch.doubt()
            while run["state"] != "COMPLETED":
                run = await with_news(client, run)
