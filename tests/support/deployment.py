"""A worker as a process of its own, to be killed and started again, with real containers.

Between it and both the server and the Docker Engine stands a proxy that can hold a request.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import trio

from gyoza.client import AsyncGyozaClient
from tests.containers.daemon import connect_to_engine, daemon
from tests.support.chatty_op import check_told
from tests.support.holding_proxy import HoldingProxy, open_holding_proxy

Json = dict[str, Any]

ENDS = ("COMPLETED", "FAILED", "CANCELLED")
COMMAND = (sys.executable, "-c", "import sys; from gyoza.cli.main import main; sys.exit(main())")


class Deployment:
    """One worker, which may have several lives, and a client of its server.

    Attributes:
        client: Speaks to the server itself.
        server: Stands between the worker and the server.
        engine: Stands between the worker and the Docker Engine.
        worker_id: The worker's id, in every life.
        directory: Where the worker has its run directories.
        log: What all lives of the worker have said.
    """

    def __init__(
        self, client: AsyncGyozaClient, server: HoldingProxy, engine: HoldingProxy, folder: Path
    ) -> None:
        self.client = client
        self.server = server
        self.engine = engine
        self.worker_id = f"restart-{uuid4().hex}"  # other tests use this engine, too
        self.directory = folder / "work" / self.worker_id
        self.log = folder / "worker.log"
        self._engine_events: list[Json] = []
        self._engine_event = trio.Event()
        self._process: trio.Process | None = None
        self._registers = trio.Event()
        self._environment = os.environ | {
            "GYOZA_SERVER_URL": f"http://127.0.0.1:{server.port}",
            "GYOZA_API_KEY": client.connection.api_key or "",
            "GYOZA_WORKER_ID": self.worker_id,
            "GYOZA_WORK_DIR": str(self.directory.parent),
            "GYOZA_PULL_POLICY": "never",
            "GYOZA_MAX_CONCURRENCY": "4",
            "GYOZA_HEARTBEAT": "0.2",
            "GYOZA_GRACE": "1",
            "DOCKER_HOST": f"tcp://127.0.0.1:{engine.port}",
        }

    async def start(self, command: tuple[str, ...] = COMMAND, **environment: str) -> None:
        """Start the worker; it takes runs in a moment."""
        self._registers = self.server.watch(b"/workers/heartbeat")
        with self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                [*command, "worker", "start", "--log-level", "debug"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment | environment,
            )

    @property
    def pid(self) -> int:
        """The process of the worker's present life."""
        assert self._process is not None
        return self._process.pid

    async def kill(self) -> None:
        """End the worker by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            with trio.move_on_after(10, shield=True):
                await self._process.wait()

    async def kill_at(self, reached: trio.Event) -> None:
        """End the worker by SIGKILL once a request is held."""
        await reached.wait()
        await self.kill()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the worker a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the worker's end and return its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def drain(self) -> None:
        """Let the worker end as it should, and see that it leaves nothing behind."""
        await self._registers.wait()
        self.signal()
        assert await self.ended() == 0
        assert self.containers() == []
        assert list(self.directory.iterdir()) == []
        assert "Traceback" not in self.log.read_text()

    async def submit(self, image: str, command: list[str], **options: Any) -> str:
        """Submit a run and return its id."""
        options["event_delivery"] = {"topic": self.worker_id}
        return (await self.client.create_run(image, {}, command=command, **options))["id"]

    async def until(self, run_id: str, kind: str, msg: object = None) -> None:
        """Wait until the run has such an event, in whichever attempt."""
        cursor = "0"
        while True:
            news = await self.client.get_events(self.worker_id, after=cursor, wait_s=30)
            events = [item["event"] for item in news["data"] if item["run_id"] == run_id]
            if any(e["type"] == kind and msg in (None, e["msg"]) for e in events):
                return
            cursor = news["cursor"]

    async def end_of(self, run_id: str) -> Json:
        """Return the run once it has ended."""
        cursor = "0"
        while True:
            run = await self.client.get_run(run_id)
            if run["state"] in ENDS:
                return run
            news = await self.client.get_events(self.worker_id, after=cursor, wait_s=30)
            cursor = news["cursor"]

    async def ended_whole(
        self, run_id: str, parts: int = 1, size: int = 50, more: str = ""
    ) -> Json:
        """Return a chatty run once it has ended: executed once, and all it told has arrived.

        The worker is drained for that; see `check_told` for the arguments.
        """
        run = await self.end_of(run_id)
        await self.drain()
        check_told(run, await self.client.get_logs(run_id), parts, size, more)
        assert await self.starts(run_id) == 1
        return run

    def containers(self) -> list[str]:
        """Return the names of all containers that the worker has on the engine."""
        filters = f'{{"label": ["gyoza.worker_id={self.worker_id}"]}}'
        with daemon() as engine:
            answer = engine.get("/containers/json", params={"all": 1, "filters": filters})
        return [container["Names"][0].removeprefix("/") for container in answer.json()]

    async def starts(self, run_id: str) -> int:
        """Return how often the engine has started a container of the run, once all are gone."""
        with trio.fail_after(200):
            while True:
                happened = self._happened_to(run_id)
                if happened.count("destroy") == happened.count("create") > 0:
                    return happened.count("start")
                await self._engine_event.wait()

    def _happened_to(self, run_id: str) -> list[str]:
        happened = [(e["Action"], e["Actor"]["Attributes"]) for e in self._engine_events]
        return [action for action, of in happened if of["gyoza.run_id"] == run_id]

    async def watch_engine(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep what happens to the worker's containers: the engine itself soon forgets it."""
        filters = {
            "event": ["create", "start", "destroy"],
            "label": [f"gyoza.worker_id={self.worker_id}"],
        }
        target = httpx.URL("/events", params={"filters": json.dumps(filters)})
        async with await connect_to_engine() as stream:
            await stream.send_all(b"GET %s HTTP/1.0\r\n\r\n" % target.raw_path)
            received = bytes(await stream.receive_some())
            assert received.startswith(b"HTTP/1.0 200 "), received
            task_status.started()
            _, _, unread = received.partition(b"\r\n\r\n")
            async for data in stream:
                *lines, unread = (unread + data).split(b"\n")
                self._engine_events += map(json.loads, lines)
                self._engine_event.set()
                self._engine_event = trio.Event()

    async def engine_says(self, container: str, condition: str) -> None:
        """Wait until the container is `not-running` or `removed`."""

        def wait() -> None:
            with daemon() as engine:
                engine.post(f"/containers/{container}/wait", params={"condition": condition})

        await trio.to_thread.run_sync(wait)


@asynccontextmanager
async def open_deployment(url: str, key: str, folder: Path) -> AsyncGenerator[Deployment]:
    """Prepare a worker for the server at `url`; whatever is left of it is removed afterwards."""
    address = urlsplit(url)
    to_server = partial(trio.open_tcp_stream, address.hostname or "", address.port or 0)
    async with (
        AsyncGyozaClient(url, key) as client,
        open_holding_proxy(to_server) as server,
        open_holding_proxy(connect_to_engine) as engine,
        trio.open_nursery() as nursery,
    ):
        deployment = Deployment(client, server, engine, folder)
        await nursery.start(deployment.watch_engine)
        try:
            yield deployment
        finally:
            with trio.move_on_after(10, shield=True):
                await deployment.kill()
            print(deployment.log.read_text() if deployment.log.exists() else "")  # noqa: T201
            with daemon() as real_engine:
                for name in deployment.containers():
                    real_engine.delete(f"/containers/{name}", params={"force": 1, "v": 1})
            nursery.cancel_scope.cancel()
