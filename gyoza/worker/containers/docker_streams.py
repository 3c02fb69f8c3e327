"""The output of containers: attached to as it is written, or read back from what is kept."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import requests
import trio

from gyoza.worker.containers.docker_call import Call
from gyoza.worker.containers.docker_client import send
from gyoza.worker.containers.docker_logs import Chunks, KeptLog, Readable
from gyoza.worker.containers.docker_threads import DockerThreads
from gyoza.worker.containers.engine import LogStream
from gyoza.worker.errors import EngineUnavailable

BLOCK = 1024 * 1024


@asynccontextmanager
async def attach(docker: DockerThreads, container_id: str) -> AsyncGenerator[LogStream]:
    """See `ContainerEngine.attach`."""

    def open_(client: Any) -> requests.Response:
        return send(
            client,
            "POST",
            f"/containers/{container_id}/attach",
            {"stdout": 1, "stderr": 1, "stream": 1},
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        )

    with closing(Call()) as call:
        output = await _opened(docker, call, open_, endless=True)
        yield _DockerLogStream(call, output, docker.streams)


@asynccontextmanager
async def logs(
    docker: DockerThreads, container_id: str, *, follow: bool
) -> AsyncGenerator[LogStream]:
    """See `ContainerEngine.logs`."""

    def open_(client: Any) -> requests.Response:
        params = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow)}
        return send(client, "GET", f"/containers/{container_id}/logs", params)

    with closing(Call()) as call:
        output = await _opened(docker, call, open_, endless=follow)
        kept = KeptLog(Chunks(output))
        if follow:
            yield _DockerLogStream(call, kept, docker.streams)
        else:
            yield _KeptLogs(call, kept, docker.streams, docker.host)


async def _opened(
    docker: DockerThreads, call: Call, request: Callable[[Any], requests.Response], *, endless: bool
) -> Readable:
    def in_thread(client: Any) -> Readable:
        response = request(client)
        call.answered(response)
        if endless:
            call.read_without_timeout()
        # Not the socket itself: output that came along with the head lies in this buffer.
        return response.raw._fp.fp

    return await docker.ask(in_thread, limiter=docker.streams, call=call)


class _DockerLogStream:
    """A stream whose end may be a broken connection."""

    def __init__(self, call: Call, output: Readable, limiter: trio.CapacityLimiter) -> None:
        self._call = call
        self._output = output
        self._limiter = limiter

    async def receive(self) -> bytes:
        return await self._call.run(self._read, self._limiter)

    def _read(self) -> bytes:
        try:
            return self._output.read1(BLOCK)
        except (OSError, EOFError, ValueError):
            return b""


class _KeptLogs(_DockerLogStream):
    """A stream whose end is the end."""

    def __init__(
        self, call: Call, output: Readable, limiter: trio.CapacityLimiter, host: str
    ) -> None:
        super().__init__(call, output, limiter)
        self._host = host

    def _read(self) -> bytes:
        try:
            return self._output.read1(BLOCK)
        except (OSError, EOFError, ValueError) as error:
            raise EngineUnavailable(
                f"The connection to the Docker Engine at {self._host} broke while it sent a log."
            ) from error
