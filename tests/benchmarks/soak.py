"""Half an hour of mixed runs: what the worker and the server hold must not grow with time."""

import random
import time
from dataclasses import dataclass
from typing import Any

import psutil
import trio

from tests.benchmarks.figures import Figure, Goal
from tests.benchmarks.stage import Server, Stage

MINUTES = 30.0
SLOTS = 8
SAMPLE_S = 5.0
MB = 2**20

SHORT = ["/bin/true"]
CHATTY = ["/bin/sh", "-c", """seq 2000; echo '::gyoza::{"type":"INFO","msg":"half"}'; seq 2000"""]
FAILS = ["/bin/sh", "-c", "echo no >&2; exit 3"]
SLOW = ["/bin/sleep", "1000"]  # cancelled
MIX = [SHORT, SHORT, CHATTY, CHATTY, FAILS, SLOW]

NOISE = {"MB": 10.0, "threads": 4.0, "files": 8.0}
"""Growth that is none: allocators keep some memory, idle stocks some threads and connections."""


@dataclass
class Load:
    """Keeps all slots busy with runs that end well, fail, talk and are cancelled.

    Attributes:
        runs: How many have ended.
    """

    server: Server
    runs: int = 0

    async def keep_busy(self, chance: random.Random) -> None:
        """Keep one slot busy, until cancelled."""
        while True:
            command = chance.choice(MIX)
            # Or what never ends by itself would outlive the soak.
            with trio.CancelScope(shield=command is SLOW):
                run_id = await self.server.submit(command)
                if command is SLOW:
                    await self.server.until(run_id, ("RUNNING",))
                    await self.server.client.cancel_run(run_id)
                await self.server.end_of(run_id)
            self.runs += 1


async def soak(stage: Stage) -> list[Figure]:
    """What both processes and the engine hold, from the first third of the time to the last."""
    series: dict[tuple[str, str], list[float]] = {}
    containers: list[float] = []
    async with (
        stage.server() as server,
        stage.worker(server, "--max-concurrency", str(SLOTS)) as worker,
    ):
        load = Load(server)
        async with trio.open_nursery() as nursery:
            for number in range(SLOTS):
                nursery.start_soon(load.keep_busy, random.Random(number))
            end = time.monotonic() + 60 * MINUTES
            while time.monotonic() < end:
                await trio.sleep(SAMPLE_S)
                for who, process in (("worker", worker), ("server", server.process)):
                    for what, held in _held_by(psutil.Process(process.pid)).items():
                        series.setdefault((who, what), []).append(held)
                containers.append(await _containers(stage))
            nursery.cancel_scope.cancel()
    left = await _containers(stage)  # the worker has drained: whatever it had has ended
    note = f"{load.runs:,} runs in {MINUTES:g} minutes, {SLOTS} at a time"
    return [
        *(_growth(who, what, held) for (who, what), held in series.items()),
        Figure(
            "soak",
            "containers",
            Goal(plus=SLOTS),
            [max(containers)],
            case="at most",
            series=containers,
            every_s=SAMPLE_S,
        ),
        Figure("soak", "containers", Goal(), [left], case="left", note=note),
    ]


def _held_by(process: psutil.Process) -> dict[str, float]:
    return {
        "MB": process.memory_info().rss / MB,
        "threads": process.num_threads(),
        "files": process.num_fds(),
    }


async def _containers(stage: Stage) -> float:
    def count(docker: Any) -> int:
        wanted = {"label": [f"gyoza.worker_id={stage.name}"]}
        return len(docker.containers(all=True, filters=wanted))

    return float(await stage.floor(count))


def _growth(who: str, what: str, held: list[float]) -> Figure:
    third = max(1, len(held) // 3)
    return Figure(
        "soak",
        what,
        Goal(plus=NOISE[what]),
        ours=held[-third:],
        floor=held[:third],
        case=who,
        series=held,
        every_s=SAMPLE_S,
    )
