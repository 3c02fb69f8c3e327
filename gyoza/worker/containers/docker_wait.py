"""Waiting for a container's exit through broken connections and restarts of the engine."""

from contextlib import closing, suppress
from typing import Any

import trio

from gyoza.worker.containers.docker_call import Call
from gyoza.worker.containers.docker_exits import Exits
from gyoza.worker.containers.docker_http import EngineHttp, Response
from gyoza.worker.containers.docker_inflow import Inflow
from gyoza.worker.containers.docker_logs import Chunks
from gyoza.worker.containers.docker_threads import DockerThreads
from gyoza.worker.containers.engine import ContainerExit
from gyoza.worker.errors import ContainerNotFound, EngineError, EngineUnavailable

# However sure a wait is, it looks again now and then: a connection can die without a word.
LOOK_AGAIN_S = 60.0
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.1, 5.0

State = dict[str, Any]
RUNNING: State = {"Status": "running"}


async def wait_for_exit(docker: DockerThreads, exits: Exits, container_id: str) -> ContainerExit:
    """See `ContainerEngine.wait`."""
    lost = disturbed = False
    backoff_s = FIRST_BACKOFF_S
    while True:
        try:
            with exits.awaited(container_id) as told, closing(Call()) as call:
                response, state = None, RUNNING
                try:
                    response = await _open(docker, container_id, call)
                except EngineUnavailable:  # but perhaps it answers to less
                    lost = True
                if lost:
                    state = await _state(docker, container_id)
                    if _runs(state):
                        disturbed, lost, backoff_s = True, False, FIRST_BACKOFF_S
                if _runs(state) and response is not None:
                    with trio.move_on_after(LOOK_AGAIN_S) as quiet:
                        await _answered(response)
                    state = await _state(docker, container_id)
                    lost = not quiet.cancelled_caught and _has_gone_down(call, response)
        except ContainerNotFound:
            raise
        except EngineError:  # away for a moment, or refusing while it stops: look again
            lost = True
            backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
        else:
            if told.cancelled_caught:
                return ContainerExit(0, disturbed=disturbed or lost)
            if state["Status"] == "created":
                raise EngineError(f"Container {container_id[:12]} was never started.")
            if not _runs(state):
                return ContainerExit(
                    state["ExitCode"],
                    state["OOMKilled"],
                    state["Error"],
                    unseen=lost,
                    disturbed=disturbed or lost,
                )
        await trio.sleep(backoff_s)


async def _open(docker: DockerThreads, container_id: str, call: Call) -> Response:
    """Let the engine wait; it says at once that it does."""

    def wait(client: EngineHttp) -> Response:
        stay = {"Connection": "keep-alive"}
        return client.send("POST", f"/containers/{container_id}/wait", headers=stay)

    return await docker.open(wait, docker.waits, call)


async def _answered(response: Response) -> None:
    """Wait for the answer, or for the end of the connection; the answer itself says too little."""
    inflow, chunks = Inflow(response, gather=False), Chunks()
    with suppress(ValueError):  # a proxy may have taken the chunks off
        while not chunks.ended and (block := await inflow.receive()):
            chunks.feed(block)


def _has_gone_down(call: Call, response: Response) -> bool:
    """Return whether another engine has told how the container ended.

    An engine that goes down stops its containers and still answers that they have exited; it hangs
    up only then. Where systemd listens for the engine, its successor is the one that tells how they
    ended, without any call having failed. Hence the connection on which it waited is held until
    then, unless the engine does not let connections stay.
    """
    head: Any = response
    return call.is_hung_up() and not head._fp.will_close


async def _state(docker: DockerThreads, container_id: str) -> State:
    path = f"/containers/{container_id}/json"
    return (await docker.ask(lambda client: client.ask("GET", path)))["State"]


def _runs(state: State) -> bool:
    return state["Status"] not in ("created", "exited", "dead")
