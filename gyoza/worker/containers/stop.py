"""Stops and removes containers, however long the engine is away in between.

Whoever calls these bounds them; while the engine does not answer they try again, with back-off.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

import trio

from gyoza.worker.containers.engine import ContainerEngine, ContainerExit
from gyoza.worker.containers.outages import through_outages
from gyoza.worker.errors import ContainerNotFound

A = TypeVar("A")
R = TypeVar("R")


async def stop_container(
    engine: ContainerEngine, container_id: str, grace_s: float
) -> ContainerExit | None:
    """Stop a container that was started; it has exited, or is gone, when this returns.

    The grace period begins when the engine has taken the stop signal.

    Args:
        engine: The engine it runs on.
        container_id: Its id or name.
        grace_s: Seconds between the stop signal and SIGKILL; 0 kills at once.

    Returns:
        How it ended; None if it is gone.

    Raises:
        EngineError: If the engine refuses.
    """
    try:
        if grace_s > 0:
            await _through_outages(engine.ask_to_stop, container_id)
            with trio.move_on_after(grace_s):
                return await engine.wait(container_id)
        await _through_outages(engine.kill, container_id)
        return await engine.wait(container_id)
    except ContainerNotFound:
        return None


async def remove_container(engine: ContainerEngine, container_id: str) -> None:
    """Remove a container in whatever state it is; it is gone when this returns.

    Args:
        engine: The engine it is on.
        container_id: Its id or name.

    Raises:
        EngineError: If the engine refuses.
    """
    await _through_outages(engine.remove, container_id)


async def end_containers(
    engine: ContainerEngine,
    labels: Mapping[str, str],
    grace_s: float,
    before_stop: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Stop and remove the containers that carry these labels, in whatever state they are.

    Args:
        engine: The engine they are on.
        labels: Names and values; `""` is any value.
        grace_s: As for `stop_container`.
        before_stop: Awaited before a container that runs is sent a signal.

    Raises:
        EngineError: If the engine refuses.
    """
    for container in await _through_outages(engine.list, labels):
        if container.state in ("running", "paused"):
            if before_stop is not None:
                await before_stop()
            await stop_container(engine, container.id, grace_s)
        await remove_container(engine, container.id)


async def _through_outages(call: Callable[[A], Awaitable[R]], argument: A) -> R:
    return await through_outages(partial(call, argument), f"Ending {argument}")
