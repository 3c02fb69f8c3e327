"""A thousand workers on one server: how long heartbeats take, and what a run costs the server."""

import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tests.benchmarks.figures import ROUNDS, Figure, Goal
from tests.benchmarks.resources import cpu_s
from tests.benchmarks.simulated_workers import HEARTBEAT_S, SimulatedWorkers
from tests.benchmarks.stage import Server, Stage

WORKERS = 1_000
WAVES = {100: 100, 1_000: 1_000 // ROUNDS, 10_000: 10_000 // ROUNDS}
"""Runs at a time, by how many there are in all; the smallest number counts as the floor."""

FLOOR, LARGE = min(WAVES), max(WAVES)
WARM = 20
"""Runs before each wave that do not count."""


@dataclass
class Load:
    """A server, and what each wave of runs took."""

    server: Server
    cpu_ms: list[float] = field(default_factory=list[float])
    wall_ms: list[float] = field(default_factory=list[float])
    slowest_ms: list[float] = field(default_factory=list[float])

    async def wave(self, runs: int) -> None:
        """Measure a wave, by workers that have come for it and wait for runs."""
        process = self.server.process
        async with SimulatedWorkers.open(self.server.client.connection, WORKERS) as workers:
            await workers.wave(WARM)
            cpu, start = cpu_s(process), time.perf_counter()
            beats = await workers.wave(runs)
            self.wall_ms.append((time.perf_counter() - start) / runs * 1000)
            self.cpu_ms.append((cpu_s(process) - cpu) / runs * 1000)
        self.slowest_ms.append(statistics.quantiles(beats, n=100)[98] * 1000)


async def fleet(stage: Stage) -> list[Figure]:
    """Runs in waves, in turn through servers that have had few and many."""
    async with AsyncExitStack() as stack:
        loads: dict[int, Load] = {}
        for size in WAVES:
            url = f"sqlite:///{stage.folder / f'{size}.db'}"
            server = await stack.enter_async_context(stage.server("--database-url", url))
            loads[size] = Load(server)
        for _ in range(ROUNDS):
            for size, load in loads.items():
                await load.wave(WAVES[size])
    return _figures(loads)


def _figures(loads: dict[int, Load]) -> list[Figure]:
    floor = loads[FLOOR]
    what = f"{WORKERS:,} workers, a heartbeat each {HEARTBEAT_S:g} s; {ROUNDS} waves"
    p99 = loads[LARGE].slowest_ms
    figures = [Figure("fleet", "ms", Goal(plus=100), p99, case="heartbeat p99", note=what)]
    for size, load in loads.items():
        costs = {"server CPU": (load.cpu_ms, floor.cpu_ms), "wall": (load.wall_ms, floor.wall_ms)}
        for cost, (ours, least) in costs.items():
            goal, case = Goal(times=1.2), f"{cost} of {size:,} runs"
            figures.append(Figure("fleet", "ms a run", goal, ours, least, case, float(size)))
    return figures
