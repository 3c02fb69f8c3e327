"""Exits as the engine tells of them, which it does before it has tidied up behind a container.

An engine answers a wait, and questions for the container's state, only when it has taken the
container's network and file systems apart. The event `die` comes before all that.
"""

import json
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from typing import Any

import trio

from gyoza.worker.containers.docker_call import Call
from gyoza.worker.containers.docker_http import EngineHttp, Response
from gyoza.worker.containers.docker_inflow import Inflow
from gyoza.worker.containers.docker_logs import Chunks
from gyoza.worker.containers.docker_threads import DockerThreads
from gyoza.worker.containers.labels import GPUS, RUN_ID
from gyoza.worker.errors import EngineError, EngineUnavailable

FILTERS = {"type": ["container"], "event": ["die", "oom"], "label": [RUN_ID]}

LATE_S = 1.0
"""Seconds that an event may come after the exit; a kill for memory was seen 0.3 s late."""


class Exits:
    """Tells those who wait for a container that it has ended well.

    Of any other end they have to hear by themselves: it takes a look at the container to know what
    came of it. So it does if the container has GPUs, which it holds for as long as the engine says
    that it runs; or if one of its processes was killed for memory.
    """

    def __init__(self) -> None:
        self._heard = False
        self._waits: set[tuple[str, trio.CancelScope]] = set()

    @contextmanager
    def awaited(self, container_id: str) -> Generator[trio.CancelScope]:
        """Cancel the block when the container has exited with 0, all its processes with it.

        Only if the engine has been listened to from before the block until then.
        """
        with trio.CancelScope() as scope:
            if self._heard:
                self._waits.add((container_id, scope))
            try:
                yield scope
            finally:
                self._waits.discard((container_id, scope))

    async def hear(self, docker: DockerThreads, task_status: trio.TaskStatus[None]) -> None:
        """Listen to the engine until the connection ends.

        Raises:
            EngineError: If there is none, or something else is said on it.
        """
        with closing(Call()) as call:
            inflow = await _events(docker, call, FILTERS)
            self._heard = True
            task_status.started()
            try:
                await self._hear(inflow)
            except (ValueError, KeyError, TypeError) as error:
                raise EngineError(
                    f"The events of {docker.host} make no sense: {error!r}"
                ) from error
            finally:
                self._heard = False
                self._waits.clear()

    async def _hear(self, inflow: Inflow) -> None:
        chunks, pending = Chunks(), b""
        while not chunks.ended and (block := await inflow.receive()):
            *lines, pending = (pending + chunks.feed(block)).split(b"\n")
            for line in lines:
                self._tell(json.loads(line))

    def _tell(self, event: dict[str, Any]) -> None:
        container_id, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
        waits = [wait for wait in self._waits if wait[0] == container_id]
        self._waits.difference_update(waits)
        if event["Action"] == "die" and attributes["exitCode"] == "0" and not attributes.get(GPUS):
            for _, scope in waits:
                scope.cancel()


async def killed_for_memory(docker: DockerThreads, container_id: str) -> bool:
    """See `ContainerEngine.killed_for_memory`."""
    return await _tells(docker, container_id, "oom")


async def saw_exit(docker: DockerThreads, container_id: str) -> bool:
    """See `ContainerEngine.saw_exit`.

    Containers that an engine finds gone when it starts are given that moment as their end, and no
    event. It makes its default bridge anew after that, and before it sees anything else end. Where
    that bridge says nothing, the engine may still have the event of the exit, among its last 256 of
    all kinds.
    """
    path = f"/containers/{container_id}/json"
    container = await docker.ask(lambda client: client.ask("GET", path))
    had_started = await _had_started(docker)
    if had_started and _time(container["State"]["FinishedAt"]) > had_started:
        return True
    return await _tells(docker, container_id, "die")


async def _had_started(docker: DockerThreads) -> datetime | None:
    """Return when the engine had found what was gone, by its default bridge; None if unknown."""

    def ask(client: EngineHttp) -> datetime | None:
        # If containers have outlived an engine, its successor keeps the bridge as well.
        if client.ask("GET", "/info").get("LiveRestoreEnabled", True):
            return None
        return _time(client.ask("GET", "/networks/bridge")["Created"])

    try:
        return await docker.ask(ask)
    except EngineUnavailable:
        raise
    except EngineError:  # it has none, or may not be asked
        return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def _tells(docker: DockerThreads, container_id: str, event: str) -> bool:
    """Return whether the engine has told of such an event since it started, or does so soon."""
    filters = {"container": [container_id], "event": [event]}
    with suppress(EngineError), closing(Call()) as call, trio.move_on_after(LATE_S):
        inflow = await _events(docker, call, filters, since=0)  # what has been, and what comes
        while block := await inflow.receive():
            if b"{" in block:  # an event, in whatever wrapping; no other was asked for
                return True
    return False


async def _events(
    docker: DockerThreads, call: Call, filters: dict[str, list[str]], **since: int
) -> Inflow:
    """Return what the engine tells of such events, for as long as the call stays open."""

    def ask(client: EngineHttp) -> Response:
        which = {**since, "filters": json.dumps(filters)}
        return client.send("GET", "/events", which, endless=True)

    return Inflow(await docker.open(ask, docker.quick, call), gather=False)
