"""The output of containers: attached to as it is written, or read back from what is kept."""

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing

import trio

from gyoza.worker.containers.docker_call import Call
from gyoza.worker.containers.docker_http import EngineHttp, Response
from gyoza.worker.containers.docker_inflow import Inflow
from gyoza.worker.containers.docker_logs import Chunks, KeptLog
from gyoza.worker.containers.docker_threads import DockerThreads
from gyoza.worker.containers.engine import LogStream
from gyoza.worker.errors import EngineUnavailable

SILENCE_S = 120.0
"""Seconds without a byte of a log that is only to be read."""


@asynccontextmanager
async def attach(docker: DockerThreads, container_id: str) -> AsyncGenerator[LogStream]:
    """See `ContainerEngine.attach`."""

    def open_(client: EngineHttp) -> Response:
        return client.send(
            "POST",
            f"/containers/{container_id}/attach",
            {"stdout": 1, "stderr": 1, "stream": 1},
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        )

    with closing(Call()) as call:
        yield Inflow(await docker.open(open_, docker.streams, call), gather=True)


@asynccontextmanager
async def logs(
    docker: DockerThreads, container_id: str, *, follow: bool
) -> AsyncGenerator[LogStream]:
    """See `ContainerEngine.logs`."""

    def open_(client: EngineHttp) -> Response:
        params = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow)}
        return client.send("GET", f"/containers/{container_id}/logs", params)

    with closing(Call()) as call:
        response = await docker.open(open_, docker.streams, call)
        yield _KeptLogs(response, None if follow else docker.host)


class _KeptLogs:
    """What the engine has kept of the output.

    Args:
        response: Its body is the log.
        host: The engine's, where the log has an end, and anything else is an error; None for a log
            that is followed.
    """

    def __init__(self, response: Response, host: str | None) -> None:
        self._inflow = Inflow(response, gather=True)
        self._chunks = Chunks()
        self._log = KeptLog()
        self._host = host

    async def receive(self) -> bytes:
        while not self._chunks.ended:
            block = b""
            with trio.move_on_after(SILENCE_S if self._host else math.inf):
                block = await self._inflow.receive()
            try:
                frames = self._log.feed(self._chunks.feed(block))
            except ValueError:
                block = frames = b""
            if frames:
                return frames
            if not block:
                self._refuse_this_end()
                break
        return b""

    def _refuse_this_end(self) -> None:
        if self._host:
            raise EngineUnavailable(
                f"The connection to the Docker Engine at {self._host} broke while it sent a log."
            )
