"""Everything goes wrong and no run is lost: `python -m tests.chaos --help`.

Exit codes: 0 all was as it should be; 1 it was not; 2 it could not be tried here; 130 interrupted.
"""

import argparse
import random
import signal
import sys
from typing import cast

import trio

from gyoza.demo.images import ImageBuildError
from tests.chaos.engine import EngineDidNotStart
from tests.chaos.play import Options, play

RUNS, FAULTS_S, GAP_S = 200, 420.0, 2.5
QUICK_RUNS, QUICK_FAULTS_S = 60, 130.0
FINE, WRONG, IMPOSSIBLE, INTERRUPTED = 0, 1, 2, 130


def options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="just chaos",
        description="Runs under random faults, with real processes and a real engine; at the end "
        "what every container did is compared with what the server says.",
    )
    parser.add_argument("--seed", type=int, help="draws runs and faults; printed when drawn")
    parser.add_argument("--runs", type=int, help=f"how many; {RUNS}, with --quick {QUICK_RUNS}")
    parser.add_argument("--quick", action="store_true", help="done in less than 5 minutes")
    parser.add_argument(
        "--faults-s",
        type=float,
        metavar="SECONDS",
        help=f"faults happen for at most so long; {FAULTS_S:g}, with --quick {QUICK_FAULTS_S:g};"
        " 0 for none",
    )
    parser.add_argument("--keep", action="store_true", help="keep logs, database and marks")
    given = parser.parse_args()
    runs = QUICK_RUNS if given.quick else RUNS
    faults_s = QUICK_FAULTS_S if given.quick else FAULTS_S
    return Options(
        runs=runs if given.runs is None else given.runs,
        faults_s=faults_s if given.faults_s is None else given.faults_s,
        gap_s=GAP_S,
        seed=random.SystemRandom().randrange(10**6) if given.seed is None else given.seed,
        keep=given.keep,
    )


def write(line: str) -> None:
    """Write a line at once, so that it can be followed."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def sentences(error: BaseException) -> list[str]:
    """Return what the errors of a group of groups say."""
    if not isinstance(error, BaseExceptionGroup):
        return [str(error)]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [sentence for one in group.exceptions for sentence in sentences(one)]


async def main(chosen: Options) -> int:
    """Play until the end or a signal; either way nothing is left running."""
    code = INTERRUPTED
    async with trio.open_nursery() as nursery:

        async def end_by_signal() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    write("Interrupted; cleaning up.")
                    nursery.cancel_scope.cancel()

        nursery.start_soon(end_by_signal)
        code = FINE if await play(chosen, write) else WRONG
        nursery.cancel_scope.cancel()
    return code


if __name__ == "__main__":
    code = IMPOSSIBLE
    try:
        code = trio.run(main, options())
    except* (EngineDidNotStart, ImageBuildError) as errors:
        write(f"Chaos cannot be tried here: {'; '.join(sentences(errors))}")
    sys.exit(code)
