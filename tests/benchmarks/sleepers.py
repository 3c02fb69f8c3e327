"""Runs that sleep until they are cancelled."""

import trio

from tests.benchmarks.engine_events import EngineEvents
from tests.benchmarks.stage import Server, Stage

SLEEP = ["/bin/sleep", "1000"]


async def start_sleepers(stage: Stage, server: Server, count: int) -> list[str]:
    """Submit runs that sleep and return their ids once the engine has started all containers.

    RUNNING would not do: a run is that as soon as its container is about to be started.
    """
    with EngineEvents(stage.docker, "start") as events:
        run_ids = [await server.submit(SLEEP) for _ in range(count)]
        wanted = set(run_ids)
        with trio.fail_after(20 + 2 * count):
            await stage.floor(lambda _: events.moments("gyoza.run_id", wanted))
    return run_ids


async def end_sleepers(stage: Stage, server: Server, run_ids: list[str]) -> None:
    """Cancel runs at once and wait until the worker holds none, as its own folder tells."""
    async with trio.open_nursery() as nursery:
        for run_id in run_ids:
            nursery.start_soon(server.client.cancel_run, run_id)
    folder = stage.folder / "work" / stage.name
    while any(folder.iterdir()):  # noqa: ASYNC110 - another process's folder
        await trio.sleep(0.002)
