"""A Docker Engine that is restarted, killed, frozen or out of reach, under everything we ask."""

import os
import signal
import socket
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from gyoza.demo.images import build_busybox_image
from gyoza.worker.containers.docker_engine import DockerEngine, open_docker_engine
from gyoza.worker.containers.engine import ContainerExit, ContainerSpec
from gyoza.worker.containers.stop import remove_container, stop_container
from gyoza.worker.errors import EngineUnavailable
from tests.containers.bench import Bench, demultiplexed, read_to_end
from tests.containers.own_engine import OwnEngine, answers, open_own_engine

SLOW = 200
IMAGE = "gyoza-test-outage:latest"
LABELS = {"gyoza.test": "outage"}

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="an engine of its own needs root"),
]


@pytest.fixture
async def own(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[OwnEngine]:
    """An engine that is not running yet, to which DOCKER_HOST points."""
    # Not tmp_path: the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="gyoza-", ignore_cleanup_errors=True) as folder:
        async with open_own_engine(Path(folder)) as own:
            monkeypatch.setenv("DOCKER_HOST", own.host)
            yield own


@pytest.fixture
def listener(own: OwnEngine) -> Generator[socket.socket]:
    """A socket that accepts for the engine while there is none, as systemd's does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own.socket))
        listener.listen()
        yield listener


class Watched:
    """A running container of the engine, which says `begun` and exits with 7 when told to end."""

    SCRIPT = "printf begun; until [ -e /told/end ]; do sleep 0.1; done; echo ' ended'; exit 7"

    def __init__(self, engine: DockerEngine, folder: Path) -> None:
        self.engine = engine
        self.spec = ContainerSpec(
            name="gyoza-test-watched",
            image=IMAGE,
            command=["sh", "-c", self.SCRIPT],
            labels=LABELS,
            volumes={str(folder): "/told"},
        )
        self.id = ""
        self.exit: ContainerExit | None = None
        self.exited = trio.Event()
        self._folder = folder

    def tell_to_end(self) -> None:
        (self._folder / "end").touch()

    async def wait(self) -> None:
        self.exit = await self.engine.wait(self.id)
        self.exited.set()


@asynccontextmanager
async def watched_container(folder: Path, deadline_s: float = 30) -> AsyncGenerator[Watched]:
    """Run a container on the engine that has just been started, and wait for it."""
    async with open_docker_engine(deadline_s=deadline_s) as engine, trio.open_nursery() as nursery:
        await answers(engine)
        await build_busybox_image(engine, IMAGE)
        watched = Watched(engine, folder)
        watched.id = await engine.create(watched.spec)
        async with engine.attach(watched.id) as stream:
            await engine.start(watched.id)
            assert b"begun" in await stream.receive()
        nursery.start_soon(watched.wait)
        await trio.testing.wait_all_tasks_blocked(0.2)  # a thread asks, and is answered
        yield watched
        with trio.fail_after(SLOW):
            await watched.exited.wait()
            await engine.remove(watched.id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_an_engine_that_goes_down_has_stopped_ended_unseen(
    own: OwnEngine, tmp_path: Path, number: signal.Signals
) -> None:
    with trio.fail_after(SLOW):
        await own.start()
        async with watched_container(tmp_path) as watched:
            async with watched.engine.attach(watched.id) as stream:
                await own.stop(number)
                assert await stream.receive() == b""
            assert watched.exit is None
            await own.start()
        assert watched.exit is not None
        assert watched.exit.exit_code in (137, 143)
        assert watched.exit.unseen


async def test_so_it_did_where_systemd_listens_for_the_engine(
    own: OwnEngine, listener: socket.socket, tmp_path: Path
) -> None:
    """No call fails there: the next engine answers what the last one was asked."""
    with trio.fail_after(SLOW):
        await own.start(listener=listener)
        async with watched_container(tmp_path) as watched:
            await own.stop()
            await own.start(listener=listener)
        assert watched.exit == ContainerExit(143, unseen=True, disturbed=True)


async def start_another(engine: DockerEngine, folder: Path, script: str) -> str:
    """Start a container beside the one that is watched."""
    other = Watched(engine, folder).spec
    other = replace(other, name="gyoza-test-other", command=["sh", "-c", script])
    container_id = await engine.create(other)
    await engine.start(container_id)
    return container_id


async def let_events_be_forgotten(engine: DockerEngine) -> None:
    """Make more events than an engine remembers."""
    for _ in range(150):
        await engine.remove(await engine.create(ContainerSpec(name="gyoza-test-x", image=IMAGE)))


@pytest.mark.parametrize("bridge", [True, False])
async def test_a_container_that_an_engine_has_lost_is_told_from_one_that_exited_so(
    own: OwnEngine, tmp_path: Path, bridge: bool
) -> None:
    with trio.fail_after(SLOW):
        await own.start(bridge=bridge)
        async with watched_container(tmp_path) as lost:
            await own.lose_containers()
            await own.start(bridge=bridge)
            await lost.exited.wait()
            assert lost.exit == ContainerExit(255, unseen=True, disturbed=True)
            other = await start_another(lost.engine, tmp_path, "exit 255")
            assert await lost.engine.wait(other) == ContainerExit(255)
            assert await lost.engine.saw_exit(other)
            if bridge:
                await let_events_be_forgotten(lost.engine)
                assert await lost.engine.saw_exit(other)
            assert not await lost.engine.saw_exit(lost.id)
            await lost.engine.remove(other)


EXITS_LIKE_LOST = "until [ -e /told/exit ]; do sleep 0.1; done; exit 255"


async def test_a_container_that_an_engine_has_lost_is_told_from_others_that_outlived_it(
    own: OwnEngine, tmp_path: Path
) -> None:
    """The engine keeps its bridge with those, which is older than the end of what was lost."""
    with trio.fail_after(SLOW):
        await own.start(bridge=True, live_restore=True)
        async with watched_container(tmp_path) as lost:
            other = await start_another(lost.engine, tmp_path, EXITS_LIKE_LOST)
            await own.stop(signal.SIGKILL)
            own.lose_container(lost.id)
            await own.start(bridge=True, live_restore=True)
            await lost.exited.wait()
            assert lost.exit == ContainerExit(255, unseen=True, disturbed=True)
            assert not await lost.engine.saw_exit(lost.id)
            await trio.Path(tmp_path / "exit").touch()
            assert await lost.engine.wait(other) == ContainerExit(255)
            assert await lost.engine.saw_exit(other)
            await lost.engine.remove(other)


@pytest.mark.parametrize("others_outlive_it", [False, True])
async def test_nothing_tells_an_exit_like_that_while_the_engine_is_down_from_a_loss(
    own: OwnEngine, tmp_path: Path, others_outlive_it: bool
) -> None:
    os.mkfifo(tmp_path / "lives")
    script = f"exec 3>/told/lives; {EXITS_LIKE_LOST}"
    with trio.fail_after(SLOW):
        await own.start(bridge=True, live_restore=others_outlive_it)
        async with watched_container(tmp_path) as watched, trio.open_nursery() as nursery:
            other = await start_another(watched.engine, tmp_path, script)
            ended = trio.Event()

            async def read_to_its_end() -> None:
                await trio.Path(tmp_path / "lives").read_bytes()
                ended.set()

            nursery.start_soon(read_to_its_end)
            await own.stop(signal.SIGKILL)
            await trio.Path(tmp_path / "exit").touch()
            await ended.wait()
            await own.start(bridge=True, live_restore=others_outlive_it)
            await answers(watched.engine)
            assert (await watched.engine.wait(other)).exit_code == 255
            await let_events_be_forgotten(watched.engine)  # what has kept it may tell of it late
            assert not await watched.engine.saw_exit(other)
            await watched.engine.remove(other)
            watched.tell_to_end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_container_that_outlives_its_engine_is_waited_for(
    own: OwnEngine, tmp_path: Path, number: signal.Signals
) -> None:
    with trio.fail_after(SLOW):
        await own.start(live_restore=True)
        async with watched_container(tmp_path) as watched:
            await own.stop(number)
            await own.start(live_restore=True)
            await answers(watched.engine)
            [found] = await watched.engine.list(LABELS)
            assert (found.id, found.state) == (watched.id, "running")
            async with watched.engine.logs(watched.id, follow=True) as stream:
                await trio.testing.wait_all_tasks_blocked(0.2)
                watched.tell_to_end()
                followed, _ = demultiplexed(await read_to_end(stream))
            await watched.exited.wait()
            kept, _ = await Bench(watched.engine, IMAGE).logs(watched.id)
        assert watched.exit == ContainerExit(7, disturbed=True)
        # The engine has lost what it held of a line that was not complete when it went.
        assert kept == followed == b" ended\n"


def everything(engine: DockerEngine) -> list[Callable[[], Awaitable[object]]]:
    """Return a call of every kind that has a deadline."""
    spec = ContainerSpec(name="gyoza-test-other", image=IMAGE, labels=LABELS)
    return [
        engine.info,
        lambda: engine.find_image(IMAGE),
        lambda: engine.pull("127.0.0.1:1/no", print),
        lambda: engine.create(spec),
        lambda: engine.attach("x").__aenter__(),
        lambda: engine.logs("x", follow=False).__aenter__(),
        lambda: engine.start("x"),
        lambda: engine.ask_to_stop("x"),
        lambda: engine.kill("x"),
        lambda: engine.remove("x"),
        lambda: engine.list({}),
    ]


async def test_an_engine_that_is_down_is_unavailable_to_every_call(
    own: OwnEngine, tmp_path: Path
) -> None:
    with trio.fail_after(SLOW):
        await own.start()
        async with watched_container(tmp_path) as watched:
            await own.stop(signal.SIGKILL)
            for call in everything(watched.engine):
                with pytest.raises(EngineUnavailable, match="No Docker Engine answers"):
                    await call()
            await own.start()


async def test_a_socket_that_is_gone_for_a_while_is_an_outage(
    own: OwnEngine, tmp_path: Path
) -> None:
    with trio.fail_after(SLOW):
        await own.start()
        async with watched_container(tmp_path) as watched:
            elsewhere = own.socket.with_name("elsewhere")
            own.socket.rename(elsewhere)
            watched.tell_to_end()
            for call in everything(watched.engine):
                with pytest.raises(EngineUnavailable, match="No Docker Engine answers"):
                    await call()
            elsewhere.rename(own.socket)
        assert watched.exit is not None
        assert watched.exit.exit_code == 7


async def remove_other(engine: DockerEngine) -> None:
    """Remove what was created by a call without an answer, as soon as it is found."""
    while True:
        for container in await engine.list(LABELS):
            if container.name == "gyoza-test-other":
                await engine.remove(container.id)
                return
        await trio.sleep(0.05)


async def test_a_frozen_engine_is_unavailable_and_then_goes_on(
    own: OwnEngine, tmp_path: Path
) -> None:
    with trio.fail_after(SLOW):
        await own.start()
        async with (
            watched_container(tmp_path) as watched,
            watched.engine.attach(watched.id) as stream,
            open_docker_engine(deadline_s=0.2) as impatient,
        ):
            await impatient.info()
            own.signal(signal.SIGSTOP)
            for call in everything(impatient)[3:]:
                with pytest.raises(EngineUnavailable, match="did not answer within"):
                    await call()
            watched.tell_to_end()
            assert watched.exit is None
            own.signal(signal.SIGCONT)
            assert demultiplexed(await read_to_end(stream)) == (b" ended\n", b"")
            await watched.exited.wait()
            await remove_other(watched.engine)
        assert watched.exit == ContainerExit(7)


async def test_probes_of_a_frozen_engine_leave_nothing_behind(
    own: OwnEngine, tmp_path: Path
) -> None:
    async def probe() -> None:
        with trio.move_on_after(0.3) as scope:
            await watched.engine.info()
        assert scope.cancelled_caught

    async def probe_often() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(40):  # more than may ask at once
                nursery.start_soon(probe)

    with trio.fail_after(SLOW):
        await own.start()
        async with watched_container(tmp_path) as watched:
            own.signal(signal.SIGSTOP)
            await probe_often()  # by the end of these the wait has what it needs
            open_files = len(os.listdir("/proc/self/fd"))
            await probe_often()
            while len(os.listdir("/proc/self/fd")) > open_files:
                await trio.lowlevel.checkpoint()
            own.signal(signal.SIGCONT)
            await watched.engine.info()
            watched.tell_to_end()


async def test_a_container_is_stopped_and_removed_once_the_engine_is_back(
    own: OwnEngine, tmp_path: Path
) -> None:
    with trio.fail_after(SLOW):
        await own.start(live_restore=True)
        async with watched_container(tmp_path) as watched, trio.open_nursery() as nursery:
            await own.stop()
            nursery.start_soon(stop_container, watched.engine, watched.id, SLOW)
            await trio.testing.wait_all_tasks_blocked(0.2)
            await own.start(live_restore=True)
            await watched.exited.wait()
            assert watched.exit is not None
            assert watched.exit.exit_code == 143
            await own.stop()
            nursery.start_soon(remove_container, watched.engine, watched.spec.name)
            await trio.testing.wait_all_tasks_blocked(0.2)
            await own.start(live_restore=True)
        async with open_docker_engine() as engine:
            assert await engine.list(LABELS) == []
