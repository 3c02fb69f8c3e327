"""Cancels: one run, and fifty at once, until their containers are dead."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tests.benchmarks.engine_events import EngineEvents
from tests.benchmarks.figures import Figure, Goal, alternate
from tests.benchmarks.plain import create
from tests.benchmarks.sleepers import SLEEP, end_sleepers, start_sleepers
from tests.benchmarks.stage import Stage

ROUNDS = 15
MANY = 50


async def cancel(stage: Stage) -> list[Figure]:
    """Cancelled over HTTP until the engine says that the container, killed at once, is dead."""
    async with stage.server() as server, stage.worker(server):

        async def ours() -> float:
            (run_id,) = await start_sleepers(stage, server, 1)
            with EngineEvents(stage.docker, "die") as events:
                start = time.time()
                await server.client.cancel_run(run_id)
                died = await stage.floor(lambda _: events.first("gyoza.run_id", run_id))
            await end_sleepers(stage, server, [])
            return (died - start) * 1000

        def plain(docker: Any) -> float:
            container_id = create(docker, SLEEP, stage.name)
            docker.start(container_id)
            with EngineEvents(docker, "die") as events:
                start = time.time()
                docker.kill(container_id)
                docker.wait(container_id)
                died = events.first("bench", stage.name)
            docker.remove_container(container_id, v=True)
            return (died - start) * 1000

        taken = await alternate(ours, partial(stage.floor, plain), ROUNDS)
    return [Figure("cancel", "ms", Goal(plus=30), *taken)]


async def cancel_storm(stage: Stage) -> list[Figure]:
    """Fifty runs cancelled at once until all are dead and their slots are free."""
    async with stage.server() as server, stage.worker(server, "--max-concurrency", str(MANY)):

        async def ours() -> float:
            run_ids = await start_sleepers(stage, server, MANY)
            start = time.perf_counter()
            await end_sleepers(stage, server, run_ids)
            return time.perf_counter() - start

        def plain(docker: Any) -> float:
            with ThreadPoolExecutor(MANY) as pool:
                ids = list(pool.map(partial(create, docker, SLEEP), [stage.name] * MANY))
                list(pool.map(docker.start, ids))

                def end(container_id: str) -> None:
                    docker.kill(container_id)
                    docker.wait(container_id)
                    docker.remove_container(container_id, v=True)

                start = time.perf_counter()
                list(pool.map(end, ids))
                return time.perf_counter() - start

        taken = await alternate(ours, partial(stage.floor, plain))
    return [Figure("cancel-storm", "s", Goal(times=1.15), *taken, case=f"of {MANY}")]
