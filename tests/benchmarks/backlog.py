"""Claims: what they take with very many runs in the database, beside those with few."""

import statistics
import time
from functools import partial

from tests.benchmarks.figures import Figure, Goal, alternate
from tests.benchmarks.stage import Server, Stage
from tests.benchmarks.stock import CLASSES, fill, give_half_to_others

FEW = 100
FINISHED = 1_000_000
SIZES = (FEW, 10_000, 100_000)
CLAIMS = 20
WORKER = "backlog"


async def backlog(stage: Stage) -> list[Figure]:
    """One run claimed over HTTP, while many wait and very many have ended."""
    small, large = stage.folder / "small.db", stage.folder / "large.db"
    await fill(small, pending=FEW, finished=0)
    await fill(large, pending=0, finished=FINISHED)
    figures: list[Figure] = []
    waiting = 0
    for size in SIZES:
        await fill(large, pending=size - waiting, finished=0)
        waiting = size
        figures.append(await _compare(stage, f"{size:,} pending", size))
    for path in (small, large):
        await give_half_to_others(path)
    return [*figures, await _compare(stage, "half of them for others", None)]


async def _compare(stage: Stage, case: str, size: int | None) -> Figure:
    async with (
        stage.server("--database-url", f"sqlite:///{stage.folder / 'small.db'}") as few,
        stage.server("--database-url", f"sqlite:///{stage.folder / 'large.db'}") as many,
    ):
        taken = await alternate(partial(_claim_ms, many), partial(_claim_ms, few))
    what = f"{CLAIMS} claims a measurement; {FINISHED:,} ended runs stored, the floor {FEW} in all"
    hard = f"; the first half of the queue needs one of {CLASSES} tags that the worker has not"
    return Figure(
        "backlog",
        "ms",
        Goal(times=1.5),
        *taken,
        case=case,
        size=None if size is None else float(size),
        note=what + ("" if size else hard),
    )


async def _claim_ms(server: Server) -> float:
    """Return the median of some claims; for each run that is taken another one is put."""
    client = server.client
    await client.heartbeat(WORKER, {})
    taken: list[float] = []
    for _ in range(CLAIMS):
        start = time.perf_counter()
        claimed = await client.claim(WORKER, holding=[])
        taken.append(time.perf_counter() - start)
        (run,) = claimed
        await client.cancel_run(run["id"])
        await client.create_run("busybox", {}, event_delivery={"topic": "stock"})
    return statistics.median(taken) * 1000
