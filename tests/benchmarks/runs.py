"""Runs that do nothing: until their container starts, until their end, and many at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import trio

from tests.benchmarks.engine_events import EngineEvents
from tests.benchmarks.figures import Figure, Goal, alternate
from tests.benchmarks.plain import create, run_and_remove
from tests.benchmarks.stage import Server, Stage

TRUE = ["/bin/true"]
RUNS = 100
ROUNDS = 15


async def latency(stage: Stage) -> list[Figure]:
    """Submitted over HTTP until the engine says that the container has started."""
    async with stage.server() as server, stage.worker(server):

        async def ours() -> float:
            with EngineEvents(stage.docker, "start") as events:
                start = time.time()
                run_id = await server.submit(TRUE)
                started = await stage.floor(lambda _: events.first("gyoza.run_id", run_id))
            await server.end_of(run_id)
            return (started - start) * 1000

        def plain(docker: Any) -> float:
            with EngineEvents(docker, "start") as events:
                start = time.time()
                container_id = create(docker, TRUE, stage.name)
                docker.start(container_id)
                started = events.first("bench", stage.name)
            docker.wait(container_id)
            docker.remove_container(container_id, v=True)
            return (started - start) * 1000

        taken = await alternate(ours, partial(stage.floor, plain), ROUNDS)
    return [Figure("latency", "ms", Goal(plus=40), *taken)]


async def turnaround(stage: Stage) -> list[Figure]:
    """Submitted over HTTP until a client that waits sees COMPLETED."""
    async with stage.server() as server, stage.worker(server):

        async def ours() -> float:
            start = time.perf_counter()
            await server.run_to_end(TRUE)
            return (time.perf_counter() - start) * 1000

        def plain(docker: Any) -> float:
            start = time.perf_counter()
            run_and_remove(docker, TRUE, stage.name)
            return (time.perf_counter() - start) * 1000

        taken = await alternate(ours, partial(stage.floor, plain), ROUNDS)
    return [Figure("turnaround", "ms", Goal(times=1.1), *taken)]


async def throughput(stage: Stage) -> list[Figure]:
    """Many runs: submitted at once until the last is COMPLETED."""
    figures: list[Figure] = []
    for concurrency in (1, 4, 16):
        async with (
            stage.server() as server,
            stage.worker(server, "--max-concurrency", str(concurrency)),
        ):
            taken = await alternate(
                partial(_runs_a_second, server),
                partial(stage.floor, partial(_plain_runs_a_second, stage.name, concurrency)),
            )
        goal = Goal(times=0.95, more_is_better=True)
        case = f"at {concurrency}"
        figures.append(
            Figure("throughput", "runs/s", goal, *taken, case=case, size=float(concurrency))
        )
    return figures


async def _runs_a_second(server: Server) -> float:
    async def complete() -> None:
        assert (await server.run_to_end(TRUE))["state"] == "COMPLETED"

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(RUNS):
            nursery.start_soon(complete)
    return RUNS / (time.perf_counter() - start)


def _plain_runs_a_second(name: str, concurrency: int, docker: Any) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(partial(run_and_remove, docker, TRUE), [name] * RUNS))
    return RUNS / (time.perf_counter() - start)
