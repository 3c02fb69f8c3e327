"""Starting: the command line, and a worker until its first heartbeat."""

import subprocess
import sys
import time
from datetime import datetime
from functools import partial

import trio

from tests.benchmarks.figures import Figure, Goal, alternate
from tests.benchmarks.stage import AS_INSTALLED, GYOZA, Stage, user_environment

ROUNDS = 11
IMPORTS = (sys.executable, "-c", f"{AS_INSTALLED}import trio, httpx, docker")
NOTHING = (sys.executable, "-c", "pass")


async def start_up(stage: Stage) -> list[Figure]:
    """`gyoza --help` until its end, and `gyoza worker start` until the server hears of it."""
    helps, nothing = await alternate(
        partial(_seconds_of, *GYOZA, "--help"), partial(_seconds_of, *NOTHING), ROUNDS
    )
    help_note = f"an empty Python program: {sorted(nothing)[ROUNDS // 2]:.3f} s"
    async with stage.server() as server:

        async def first_heartbeat() -> float:
            before = time.time()
            async with stage.process("worker", "start"):
                while True:
                    for worker in await server.client.list_workers():
                        seen = datetime.fromisoformat(worker["last_seen"]).timestamp()
                        if seen > before:
                            return seen - before
                    await trio.sleep(0.005)

        taken = await alternate(first_heartbeat, partial(_seconds_of, *IMPORTS), ROUNDS)
    return [
        Figure("start-up", "s", Goal(plus=0.25), helps, case="gyoza --help", note=help_note),
        Figure("start-up", "s", Goal(plus=0.3), *taken, case="worker to heartbeat"),
    ]


async def _seconds_of(*command: str) -> float:
    start = time.perf_counter()
    await trio.run_process(command, stdout=subprocess.DEVNULL, env=user_environment())
    return time.perf_counter() - start
