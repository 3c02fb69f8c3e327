"""Where a benchmark plays: a server and workers as processes of their own, and the plain engine.

Each benchmark has a stage to itself and leaves nothing on the machine.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from gyoza.client import AsyncGyozaClient, ServerUnreachable
from gyoza.demo.images import build_busybox_image
from gyoza.worker.containers.docker_engine import open_docker_engine
from tests.benchmarks.docker_py import connect

T = TypeVar("T")

AS_INSTALLED = "import sys; sys.modules['click'] = None; "
"""Only tools of development install click; where it is, httpx loads a command line of its own."""

GYOZA = (
    sys.executable,
    "-c",
    f"{AS_INSTALLED}from gyoza.cli.main import main; sys.exit(main())",
)
KEY = "a-key-for-the-benchmark"
IMAGE = "gyoza-bench-busybox:latest"
ENDS = ("COMPLETED", "FAILED", "CANCELLED")
START_S, END_S, WAIT_S = 60.0, 60.0, 30.0


class Stage:
    """What the benchmarks use.

    Attributes:
        name: Nothing else on the engine has it: the worker's id, a label and a prefix of names.
        folder: A temporary one.
        docker: docker-py as a user's script has it, for the floors.
    """

    def __init__(self, folder: Path, docker_py: Any) -> None:
        self.name = f"bench-{secrets.token_hex(4)}"
        self.folder = folder
        self.docker = docker_py
        self._environment = user_environment() | {
            "GYOZA_API_KEY": KEY,
            "GYOZA_RATE_LIMIT": "0",
            "GYOZA_WORKER_ID": self.name,
            "GYOZA_WORK_DIR": str(folder / "work"),
            "GYOZA_DATABASE_URL": f"sqlite:///{folder / 'gyoza.db'}",
            "GYOZA_PULL_POLICY": "never",
            "GYOZA_GRACE": "0",
            "GYOZA_LOG_LEVEL": "warning",
        }

    @asynccontextmanager
    async def server(self, *flags: str) -> AsyncGenerator["Server"]:
        """Have a server of its own process, and a client of it."""
        port = _free_port()
        self._environment["GYOZA_SERVER_URL"] = url = f"http://127.0.0.1:{port}"
        async with (
            self.process("server", "start", "--port", str(port), *flags) as process,
            AsyncGyozaClient(url, api_key=self._environment["GYOZA_API_KEY"]) as client,
        ):
            with trio.fail_after(START_S):
                await _answers(client)
            yield Server(client, process)

    @asynccontextmanager
    async def worker(self, server: "Server", *flags: str) -> AsyncGenerator[trio.Process]:
        """Have a worker of its own process that is ready for runs."""
        async with self.process("worker", "start", *flags) as process:
            with trio.fail_after(START_S):
                await server.run_to_end(["/bin/true"])
            yield process

    @asynccontextmanager
    async def process(self, *words: str) -> AsyncGenerator[trio.Process]:
        """Have a gyoza command running; it is told to end and waited for."""
        with (self.folder / f"{words[0]}.log").open("ab") as log:
            process = await trio.lowlevel.open_process(
                [*GYOZA, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # so that Ctrl-C is ours alone
            )
        try:
            yield process
        finally:
            with trio.move_on_after(END_S, shield=True):
                process.terminate()
                await process.wait()
            if process.returncode is None:
                process.kill()

    async def floor(self, function: Callable[[Any], T]) -> T:
        """Run docker-py code in a thread, which Ctrl-C does not wait for."""
        return await trio.to_thread.run_sync(function, self.docker, abandon_on_cancel=True)


class Server:
    """A server, as its clients see it.

    Attributes:
        client: Its client.
        process: Its process.
    """

    def __init__(self, client: AsyncGyozaClient, process: trio.Process) -> None:
        self.client = client
        self.process = process

    async def submit(self, command: list[str], **options: Any) -> str:
        """Submit a run and return its id."""
        return (await self.client.create_run(IMAGE, {}, command=command, **options))["id"]

    async def run_to_end(self, command: list[str], **options: Any) -> dict[str, Any]:
        """Submit a run, wait as a client does, and return it once it has ended."""
        return await self.end_of(await self.submit(command, **options))

    async def end_of(self, run_id: str) -> dict[str, Any]:
        """Return a run once it has ended."""
        while True:
            run = await self.client.get_run(run_id, until_end=True, wait_s=WAIT_S)
            if run["state"] in ENDS:
                return run

    async def until(self, run_id: str, states: tuple[str, ...]) -> dict[str, Any]:
        """Return a run once it is in one of the states."""
        after: int | None = None
        while True:
            run = await self.client.get_run(
                run_id, after_event=after, wait_s=WAIT_S if after is not None else 0
            )
            if run["state"] in states:
                return run
            after = max(after or 0, *(event["id"] for event in run["events"]), -1)


@asynccontextmanager
async def open_stage() -> AsyncGenerator[Stage]:
    """Build the image, if it is not there, and give a stage."""
    async with open_docker_engine() as engine:
        await build_busybox_image(engine, IMAGE)
    docker_py = connect(max_pool_size=64)
    try:
        with tempfile.TemporaryDirectory(prefix="gyoza-bench-") as folder:
            stage = Stage(Path(folder), docker_py)
            try:
                yield stage
            finally:
                _remove_containers(docker_py, stage.name)
    finally:
        docker_py.close()


async def _answers(client: AsyncGyozaClient) -> None:
    while True:
        try:
            await client.health()
        except ServerUnreachable:
            await trio.sleep(0.02)
        else:
            return


def _remove_containers(docker_py: Any, name: str) -> None:
    """Remove what a benchmark that broke off has left."""
    for label in (f"gyoza.worker_id={name}", f"bench={name}"):
        for container in docker_py.containers(all=True, filters={"label": label}):
            docker_py.remove_container(container["Id"], v=True, force=True)


def user_environment() -> dict[str, str]:
    """Return our environment without what would keep Python from keeping its byte code."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
