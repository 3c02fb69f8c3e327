"""What gyoza adds to the engine, beside the floor: `python -m tests.benchmarks --help`.

Exit codes: 0 measured; 1 a goal is missed, with `--gate`; 2 it cannot be measured here.
"""

import argparse
import json
import sys
from pathlib import Path

import trio
from rich.console import Console

from tests.benchmarks.catalogue import BENCHMARKS
from tests.benchmarks.figures import Figure
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.stage import open_stage
from tests.benchmarks.table import table_of

FINE, MISSED, IMPOSSIBLE = 0, 1, 2


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="just bench",
        description="Measures gyoza beside the floor of each figure, in turn and in the same run.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--gate", action="store_true", help="exit with 1 if a goal is missed")
    given = parser.parse_args()
    for name in given.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; choose of {', '.join(BENCHMARKS)}")
    return given


async def measure(names: list[str], say: Console) -> tuple[dict[str, str], list[Figure]]:
    """Run the benchmarks one after the other, each on a stage of its own."""
    machine = await describe_machine()
    figures: list[Figure] = []
    for name in names:
        say.print(f"{name} ...", style="dim")
        async with open_stage() as stage:
            figures += await BENCHMARKS[name](stage)
    return machine, figures


def main() -> int:
    """Measure, print, and say whether the goals are met."""
    given = arguments()
    console = Console(width=None if sys.stdout.isatty() else 140)
    machine, figures = trio.run(measure, given.names or [*BENCHMARKS], Console(stderr=True))
    console.print(table_of(figures))
    for what, value in machine.items():
        console.print(f"{what}: {value}", highlight=False)
    if given.json:
        rows = [figure.to_dict() for figure in figures]
        given.json.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n")
    missed = [figure for figure in figures if not figure.met]
    return MISSED if given.gate and missed else FINE


if __name__ == "__main__":
    sys.exit(main())
