"""Everything that a chaos run is played on; what is further in ends first.

folder       a temporary one: work directories, logs, marks, the engine's data
  engine     with the one image of all runs
    database on a disk of its own
      server on a port that stays the same, by a clock of its own
        proxies and workers, each worker behind a proxy of its own
"""

import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from gyoza.client import AsyncGyozaClient
from gyoza.demo.images import build_busybox_image
from gyoza.worker.containers.docker_engine import open_docker_engine
from tests.chaos.clock import Clock, find_library, forget
from tests.chaos.database import Database, open_database
from tests.chaos.engine import Engine, open_engine
from tests.chaos.marks import Claims, read_claims
from tests.chaos.noise import Noise
from tests.chaos.plan import LEASE_S
from tests.chaos.processes import Service, away, open_service
from tests.chaos.proxy import Proxy, open_proxy

WORKERS = 3
SLOTS = 2
HEARTBEAT_S, GRACE_S, DRAIN_S = 1.0, 2.0, 4.0
IMAGE = "gyoza-chaos:latest"
GYOZA = [sys.executable, "-m", "gyoza.cli.main"]
START_S = 60.0
LOOK_S = 0.1
NO_ENGINE = NO_DATABASE = 4
"""A worker ends with it that finds no engine when it starts, a server that cannot write to its
database; both are started again."""

FOREIGN = ("GYOZA_", "DOCKER_", "NOTIFY_", "WATCHDOG_")


@dataclass
class Stage:
    """The processes under test and what they stand on.

    Attributes:
        clock: The server's.
        noise: Made on the server's port.
        client: Speaks to the server past the proxies.
    """

    folder: Path
    engine: Engine
    database: Database
    clock: Clock
    server: Service
    noise: Noise
    client: AsyncGyozaClient
    workers: list[Service] = field(default_factory=list[Service])
    proxies: list[Proxy] = field(default_factory=list[Proxy])

    @property
    def services(self) -> list[Service]:
        """All processes of gyoza."""
        return [self.server, *self.workers]

    def claims(self) -> dict[str, Claims]:
        """Return what each worker said of its runs."""
        return {
            worker.name: read_claims(worker.log.read_text(encoding="utf-8", errors="replace"))
            for worker in self.workers
        }

    def away(self) -> dict[str, list[tuple[float, float]]]:
        """Return from when to when each worker could not be heard, as wall-clock times."""
        return {
            worker.name: [*away(worker.lives, proxy.calls), *proxy.parted]
            for worker, proxy in zip(self.workers, self.proxies, strict=True)
        }

    def directories(self) -> list[Path]:
        """Return the directories of runs that are there."""
        return sorted(
            path
            for worker in self.workers
            for path in (self.folder / "work" / worker.name).glob("*")
            if path.is_dir()
        )


@asynccontextmanager
async def open_folder(*, keep: bool) -> AsyncGenerator[Path]:
    """Have a temporary folder, removed at the end unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="gyoza-chaos-"))
    try:
        yield folder
    finally:
        if not keep:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(shutil.rmtree, folder)


@asynccontextmanager
async def open_stage(folder: Path) -> AsyncGenerator[Stage]:
    """Have everything running.

    Raises:
        EngineDidNotStart: If this machine cannot have an engine of its own.
        ImageBuildError: If something for the image is missing here.
    """
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(folder))
        await _build_image(engine)
        port, key = _free_port(), secrets.token_urlsafe()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
        } | {
            "XDG_DATA_HOME": str(folder / "data-home"),
            "GYOZA_API_KEY": key,
            "DOCKER_HOST": f"unix://{engine.socket}",
        }
        database = await stack.enter_async_context(open_database(folder))
        clock = Clock(find_library(), folder / "clock")
        serve = ["server", "start", f"--port={port}", f"--lease-s={LEASE_S:g}"]
        server = await stack.enter_async_context(
            open_service(
                "server",
                [*GYOZA, *serve, f"--database-url=sqlite:///{database.file}"],
                environment | clock.environment,
                folder / "server.log",
                lambda code: code == NO_DATABASE and database.has_trouble(),
            )
        )
        stack.callback(lambda: forget(life.pid for life in server.lives))
        client = await stack.enter_async_context(AsyncGyozaClient(f"http://127.0.0.1:{port}", key))
        stage = Stage(folder, engine, database, clock, server, Noise(port), client)
        await _wait_for(port)
        for number in range(1, WORKERS + 1):
            proxy = await stack.enter_async_context(open_proxy(port))
            name = f"worker-{number}"
            worker = open_service(
                name,
                _work(name, proxy, folder),
                environment,
                folder / f"{name}.log",
                lambda code: code == NO_ENGINE and engine.has_trouble(),
            )
            stage.proxies.append(proxy)
            stage.workers.append(await stack.enter_async_context(worker))
        await _wait_for_workers(client)
        yield stage


def _work(name: str, proxy: Proxy, folder: Path) -> list[str]:
    return [
        *GYOZA,
        *("worker", "start", f"--worker-id={name}", f"--work-dir={folder / 'work'}"),
        f"--server-url=http://127.0.0.1:{proxy.port}",
        f"--max-concurrency={SLOTS}",
        *(f"--heartbeat={HEARTBEAT_S:g}", f"--grace={GRACE_S:g}", f"--drain-timeout={DRAIN_S:g}"),
        "--pull-policy=never",
    ]


async def _build_image(engine: Engine) -> None:
    op = {"/op.sh": Path(__file__).with_name("op.sh").read_bytes()}
    # The environment is where docker-py looks for the engine, as in every program of this one's.
    os.environ["DOCKER_HOST"] = f"unix://{engine.socket}"
    async with open_docker_engine() as docker:
        await build_busybox_image(docker, IMAGE, files=op)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def _wait_for(port: int) -> None:
    with trio.fail_after(START_S):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(LOOK_S)
            else:
                await stream.aclose()
                return


async def _wait_for_workers(client: AsyncGyozaClient) -> None:
    with trio.fail_after(START_S):
        while True:
            if len(await client.list_workers()) == WORKERS:
                break
            await trio.sleep(LOOK_S)  # nobody tells when a worker has come
