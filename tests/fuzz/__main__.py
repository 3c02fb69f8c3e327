"""Runs the targets, each in a process of its own; see the package."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

TARGETS = {
    "pickles": "tests.fuzz.outputs:PICKLES",
    "outputs": "tests.fuzz.outputs:OUTPUTS",
    "frames": "tests.fuzz.streams:FRAMES",
    "lines": "tests.fuzz.streams:LINES",
    "secrets": "tests.fuzz.streams:SECRETS",
    "ids": "tests.fuzz.names:IDS",
    "http": "tests.fuzz.http:HTTP",
}

LIMITS = ("-rss_limit_mb=512", "-timeout=10")
"""MB of a process and seconds of one input, of which none of them may take more."""

PATIENT = {"tests.fuzz.http:HTTP": ("-timeout=100",)}
"""What a real server behind real sockets is given on a busy machine."""

RUNS = ("-runs=20000", "-seed=1", "-max_total_time=60")
"""Without `--seconds`: the same inputs every time."""


def fuzz(target: str, budget: Sequence[str]) -> str:
    """Fuzz one target; return what broke it, or nothing.

    Args:
        target: `module:attribute`.
        budget: Options of libFuzzer.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus, found = Path(folder) / "corpus", Path(folder) / "found"
        corpus.mkdir()
        found.mkdir()
        options = [*LIMITS, *PATIENT.get(target, ()), *budget, f"-artifact_prefix={found}/"]
        command = [sys.executable, "-m", "tests.fuzz.guided", target, str(corpus), *options]
        environment = os.environ | {"TMPDIR": folder}
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
        inputs = [f"{_kind(path)}: {path.read_bytes()!r}" for path in found.iterdir()]
        if ended.returncode == 0 and not inputs:
            return ""
        return "\n".join([ended.stdout[-3000:], ended.stderr[-3000:], *inputs])


def _kind(found: Path) -> str:
    """Return `crash`, `timeout` or `oom`."""
    return found.name.partition("-")[0]


def main() -> int:
    """Fuzz the targets that are named, or all; return 1 if one of them broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, help="how long each is fuzzed, at random")
    arguments = parser.parse_args()
    if unknown := {*arguments.targets} - {*TARGETS}:
        parser.error(
            f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}"
        )
    if find_spec("atheris") is None:
        print("Nothing is fuzzed: there is no atheris for this Python or system.")  # noqa: T201
        return 0
    names: list[str] = arguments.targets or [*TARGETS]
    budget = (f"-max_total_time={arguments.seconds}",) if arguments.seconds else RUNS
    broken = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(partial(fuzz, budget=budget), [TARGETS[name] for name in names])
        for name, answer in zip(names, answers, strict=True):
            print(f"{name}: {answer or 'nothing found'}", flush=True)  # noqa: T201
            broken |= bool(answer)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
