"""Stops a container: ask, wait for the grace period, kill, wait until it has exited."""

import trio

from gyoza.worker.containers.engine import ContainerEngine
from gyoza.worker.errors import ContainerNotFound


async def stop_container(engine: ContainerEngine, container_id: str, grace_s: float) -> None:
    """Stop a container that was started; it has exited, or is gone, when this returns.

    Args:
        engine: The engine it runs on.
        container_id: Its id.
        grace_s: Seconds between the stop signal and SIGKILL; 0 kills at once.

    Raises:
        EngineError: If the engine cannot do it.
    """
    try:
        if grace_s > 0:
            await engine.ask_to_stop(container_id)
            with trio.move_on_after(grace_s):
                await engine.wait(container_id)
                return
        await engine.kill(container_id)
        await engine.wait(container_id)
    except ContainerNotFound:
        return
