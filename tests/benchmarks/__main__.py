"""What gyoza adds to the engine, beside the floor: `python -m tests.benchmarks --help`.

Exit codes: 0 measured; 1 a goal is missed, with `--gate`; 2 it cannot be measured here; 130 Ctrl-C.
"""

import argparse
import json
import sys
from pathlib import Path

import trio
from rich.console import Console

from gyoza.worker.errors import EngineUnavailable
from tests.benchmarks.catalogue import BENCHMARKS, BY_NAME_ONLY
from tests.benchmarks.figures import Figure
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.stage import open_stage
from tests.benchmarks.table import notes_of, table_of

FINE, MISSED, IMPOSSIBLE, INTERRUPTED = 0, 1, 2, 130


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="just bench",
        description="Measures gyoza beside the floor of each figure, in turn and in the same run.",
    )
    which = f"{', '.join(BENCHMARKS)}; all but {', '.join(BY_NAME_ONLY)} if none is given"
    parser.add_argument("names", nargs="*", metavar="NAME", help=which)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--gate", action="store_true", help="exit with 1 if a goal is missed")
    given = parser.parse_args()
    given.names = given.names or [name for name in BENCHMARKS if name not in BY_NAME_ONLY]
    for name in given.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; choose of {', '.join(BENCHMARKS)}")
    return given


async def measure(
    names: list[str], machine: dict[str, str], figures: list[Figure], say: Console
) -> None:
    """Run the benchmarks one after the other, each on a stage of its own.

    Args:
        names: Which.
        machine: Gets what they run on.
        figures: Gets what each has measured, at once.
        say: Is told how far it is.
    """
    machine.update(await describe_machine())
    for name in names:
        say.print(f"{name} ...", style="dim")
        async with open_stage() as stage:
            figures += await BENCHMARKS[name](stage)


def main() -> int:
    """Measure, print what was measured even if it breaks off, and say whether the goals are met."""
    given = arguments()
    machine: dict[str, str] = {}
    figures: list[Figure] = []
    say = Console(stderr=True)
    code = FINE
    try:
        trio.run(measure, given.names, machine, figures, say)
    except* EngineUnavailable as errors:
        say.print(errors.exceptions[0])
        code = IMPOSSIBLE
    except* KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        _tell(machine, figures, given.json)
    missed = given.gate and not all(figure.met for figure in figures)
    return MISSED if missed and code == FINE else code


def _tell(machine: dict[str, str], figures: list[Figure], file: Path | None) -> None:
    if not figures:
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table_of(figures))
    for note in notes_of(figures):
        console.print(note, highlight=False)
    for what, value in machine.items():
        console.print(f"{what}: {value}", highlight=False)
    if file:
        rows = [figure.to_dict() for figure in figures]
        file.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
