"""Heartbeats: what they wait while somebody else with a good key asks for the worst he may."""

import subprocess
import sys
import time

import trio

from tests.benchmarks.attacks import AT_ONCE, ATTACKS
from tests.benchmarks.figures import ROUNDS, Figure, Goal
from tests.benchmarks.stage import KEY, Server, Stage

SECONDS = 3
WARM_UP = 3
"""Heartbeats that do not count: connections open."""


async def hostile(stage: Stage) -> list[Figure]:
    """One heartbeat after the other, during each of the attacks."""
    return [await _under(stage, name) for name in ATTACKS]


async def _under(stage: Stage, name: str) -> Figure:
    path = stage.folder / f"{name.replace(' ', '-')}.db"
    async with stage.server("--database-url", f"sqlite:///{path}") as server:
        seconds = str(SECONDS * ROUNDS)
        url = server.client.connection.url
        attack = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.benchmarks.attacks", name, url, KEY, seconds],
            stdout=subprocess.PIPE,
        )
        try:
            assert isinstance(attack.stdout, trio.abc.ReceiveStream)
            await attack.stdout.receive_some()
            taken = [await _p99_ms(server) for _ in range(ROUNDS)]
        finally:
            attack.kill()
            with trio.move_on_after(30, shield=True):
                await attack.wait()
    note = f"p99 of heartbeats in {SECONDS} s, while {AT_ONCE} such requests are made at a time"
    return Figure("hostile", "ms", Goal(plus=100), taken, case=name, note=note)


async def _p99_ms(server: Server) -> float:
    waits: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        await server.client.heartbeat("good", {"cpu_cores": 4, "ram_mb": 1000})
        waits.append(time.perf_counter() - start)
        await trio.sleep(0.02)
    ordered = sorted(waits[WARM_UP:])
    return ordered[int(len(ordered) * 0.99)] * 1000
