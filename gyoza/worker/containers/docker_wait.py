"""Waiting for a container's exit through broken connections and restarts of the engine."""

from contextlib import closing
from typing import Any

import requests
import trio

from gyoza.worker.containers.docker_call import Call
from gyoza.worker.containers.docker_client import post
from gyoza.worker.containers.docker_threads import DockerThreads
from gyoza.worker.containers.engine import ContainerExit
from gyoza.worker.errors import ContainerNotFound, EngineError, EngineUnavailable

# However sure a wait is, it looks again now and then: a connection can die without a word.
LOOK_AGAIN_S = 60.0
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.1, 5.0

State = dict[str, Any]


async def wait_for_exit(docker: DockerThreads, container_id: str) -> ContainerExit:
    """See `ContainerEngine.wait`."""
    lost = disturbed = False
    backoff_s = FIRST_BACKOFF_S
    while True:
        try:
            with closing(Call()) as call:
                response = None
                try:
                    response = await _open(docker, container_id, call)
                except EngineUnavailable:  # but perhaps it answers to less
                    lost = True
                state = await _state(docker, container_id)
                if _runs(state):
                    disturbed = disturbed or lost
                    lost, backoff_s = False, FIRST_BACKOFF_S
                if _runs(state) and response is not None:
                    with trio.move_on_after(LOOK_AGAIN_S) as quiet:
                        await _answered(docker, response, call)
                    if not quiet.cancelled_caught:
                        state = await _state(docker, container_id)
                        lost = _has_gone_down(call, response)
        except ContainerNotFound:
            raise
        except EngineError:  # away for a moment, or refusing while it stops: look again
            lost = True
            backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
        else:
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


async def _open(docker: DockerThreads, container_id: str, call: Call) -> requests.Response:
    """Let the engine wait; it says at once that it does."""

    def open_(client: Any) -> requests.Response:
        stay = {"Connection": "keep-alive"}
        response = post(client, f"/containers/{container_id}/wait", {}, headers=stay)
        call.answered(response)
        call.read_without_timeout()
        return response

    return await docker.ask(open_, limiter=docker.waits, call=call)


async def _answered(docker: DockerThreads, response: requests.Response, call: Call) -> None:
    # Past urllib3, which would let others have the connection.
    await docker.run(lambda _: response.raw._fp.read(), docker.waits, call)


def _has_gone_down(call: Call, response: requests.Response) -> bool:
    """Return whether another engine has told how the container ended.

    An engine that goes down stops its containers and still answers that they have exited; it hangs
    up only then. Where systemd listens for the engine, its successor is the one that tells how they
    ended, without any call having failed. Hence the connection on which it waited is held until
    then, unless the engine does not let connections stay.
    """
    return call.is_hung_up() and not response.raw._fp.will_close


async def _state(docker: DockerThreads, container_id: str) -> State:
    return (await docker.ask(lambda client: client.inspect_container(container_id)))["State"]


def _runs(state: State) -> bool:
    return state["Status"] not in ("created", "exited", "dead")
