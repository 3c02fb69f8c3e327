"""What the worker and the server take of the machine: CPU, memory, and both while idle."""

import sys
import time

import psutil
import trio

from tests.benchmarks.figures import ROUNDS, Figure, Goal, alternate
from tests.benchmarks.runs import TRUE
from tests.benchmarks.sleepers import end_sleepers, start_sleepers
from tests.benchmarks.stage import Stage

RUNS = 40
SLEEPING = 100
IDLE_S = 20.0
MB = 2**20

SCRIPT = f"""
import resource, sys
from tests.benchmarks.docker_py import connect
from tests.benchmarks.plain import run_and_remove
client = connect()
def seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
run_and_remove(client, {TRUE!r}, sys.argv[1])
before = seconds()
for _ in range({RUNS}):
    run_and_remove(client, {TRUE!r}, sys.argv[1])
print((seconds() - before) / {RUNS})
"""


async def cpu(stage: Stage) -> list[Figure]:
    """CPU of the worker's process for each run, one after the other."""
    async with stage.server() as server, stage.worker(server) as worker:

        async def ours() -> float:
            before = cpu_s(worker)
            for _ in range(RUNS):
                await server.run_to_end(TRUE)
            return (cpu_s(worker) - before) / RUNS * 1000

        async def plain() -> float:
            done = await trio.run_process(
                [sys.executable, "-c", SCRIPT, stage.name], capture_stdout=True
            )
            return float(done.stdout) * 1000

        taken = await alternate(ours, plain)
    return [Figure("cpu", "ms a run", Goal(times=1.5), *taken)]


async def memory(stage: Stage) -> list[Figure]:
    """Growth of the worker's memory with containers that sleep, each start in a new worker."""
    taken: dict[int, list[float]] = {10: [], 50: [], SLEEPING: []}
    for _ in range(ROUNDS):
        for count, figures in taken.items():
            async with (
                stage.server() as server,
                stage.worker(server, "--max-concurrency", str(count)) as worker,
            ):
                for _ in range(20):
                    await server.run_to_end(TRUE)
                before = psutil.Process(worker.pid).memory_info().rss
                run_ids = await start_sleepers(stage, server, count)
                figures.append((psutil.Process(worker.pid).memory_info().rss - before) / MB / count)
                await end_sleepers(stage, server, run_ids)
    return [
        Figure("memory", "MB a run", Goal(plus=0.5), figures, case=f"{n} running", size=float(n))
        for n, figures in taken.items()
    ]


async def idle(stage: Stage) -> list[Figure]:
    """CPU and memory of a worker and its server that have had runs, and have none now."""
    async with stage.server() as server, stage.worker(server) as worker:
        for _ in range(20):
            await server.run_to_end(TRUE)
        both = {"worker": (worker, 60.0), "server": (server.process, 90.0)}
        shares: dict[str, list[float]] = {who: [] for who in both}
        sizes: dict[str, list[float]] = {who: [] for who in both}
        for _ in range(ROUNDS):
            before = {who: cpu_s(process) for who, (process, _) in both.items()}
            start = time.perf_counter()
            await trio.sleep(IDLE_S)
            for who, (process, _) in both.items():
                share = (cpu_s(process) - before[who]) / (time.perf_counter() - start)
                shares[who].append(100 * share)
                sizes[who].append(psutil.Process(process.pid).memory_info().rss / MB)
    return [
        *(
            Figure("idle", "% of a core", Goal(plus=0.3), taken, case=f"{who} CPU")
            for who, taken in shares.items()
        ),
        *(
            Figure("idle", "MB", Goal(plus=both[who][1]), taken, case=f"{who} memory")
            for who, taken in sizes.items()
        ),
    ]


def cpu_s(process: trio.Process) -> float:
    """Return the CPU seconds that a process has used, finer than the kernel's ticks."""
    return time.clock_gettime((~process.pid << 3) | 2)  # the clock of a process, see its manual
