"""An op that writes numbered lines to both streams and waits in between, and what it must leave.

It speaks with the test through two named pipes in its mounted folder: so a test knows how far it
is while no worker is there to tell.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from gyoza.models import OpRunState

LETTERS = "ABCDEFGHIJ;"
"""Digits and the end of a number as they go to standard error: told from standard output by them.

One stream may interrupt the other anywhere, in the middle of a line, too.
"""

_SCRIPT = """
mkfifo -m 666 /gyoza/told /gyoza/go
echo '::gyoza::{"type": "INFO", "msg": "began"}' >&2
part() {
  { seq $1 $2 | tr '0-9\\n' 'A-J;'; echo; } >&2 &
  seq $1 $2 | sed 's/.*/line &./'
  wait
  echo '::gyoza::{"type": "INFO", "msg": "to '$2'"}'
}
pause() { echo >/gyoza/told; read _ </gyoza/go; }
"""

OUTPUTS = {"written": True}
_WRITE_OUTPUTS = "echo '{\"written\": true}' >$GYOZA_OUTPUT_PATH\n"


def chatty(parts: int = 1, size: int = 50, *, pauses: bool = False, end: str = "") -> list[str]:
    """Return the command of an op that writes so many parts of so many lines.

    Args:
        parts: How many parts; after each there is an event `to <last number>`.
        size: Numbers in each part, one a line.
        pauses: It waits after every part for the test's word.
        end: Further shell commands, after its outputs are written.
    """
    said = [
        f"part {first} {first + size - 1}" + ("; pause\n" if pauses else "\n")
        for first in range(1, parts * size, size)
    ]
    return ["sh", "-c", _SCRIPT + "".join(said) + _WRITE_OUTPUTS + end]


class Pipes:
    """The test's ends of the op's two named pipes."""

    def __init__(self, told: trio.lowlevel.FdStream, go: trio.lowlevel.FdStream) -> None:
        self._told = told
        self._go = go

    async def waits(self) -> None:
        """Wait until the op waits; each part once."""
        await self._told.receive_some(1)

    async def go_on(self) -> None:
        """Let it go on."""
        await self._go.send_all(b"\n")


@asynccontextmanager
async def open_pipes(run_dir: Path) -> AsyncGenerator[Pipes]:
    """Open the pipes of an op that has begun."""
    told, go = (
        trio.lowlevel.FdStream(os.open(run_dir / "gyoza" / name, os.O_RDWR | os.O_NONBLOCK))
        for name in ("told", "go")
    )
    async with told, go:
        yield Pipes(told, go)


def check_told(
    run: dict[str, Any], log: str, parts: int = 1, size: int = 50, more: str = ""
) -> None:
    """See that an attempt's log and events are whole: nothing lost, nothing twice, in order.

    Args:
        run: The run as it has ended.
        log: Its log.
        parts: As for `chatty`.
        size: As for `chatty`.
        more: What its `end` has written to standard output.
    """
    numbers = [str(number) for number in range(1, parts * size + 1)]
    stderr = "".join(letter for letter in log if letter in LETTERS)
    assert stderr.translate(str.maketrans(LETTERS, "0123456789\n")).split() == numbers
    stdout = "".join(letter for letter in log if letter not in LETTERS)
    assert stdout.replace("\n", "") == "".join(f"line {number}." for number in numbers) + more
    assert log.count("\n") == len(numbers) + parts
    events: list[dict[str, Any]] = run["events"]
    told = [(event["type"], event["msg"]) for event in events]
    marks = [f"to {part * size}" for part in range(1, parts + 1)]
    infos = [msg for kind, msg in told if kind == "INFO"]
    assert infos.count("began") == 1
    assert [msg for msg in infos if msg != "began"] == marks
    kinds = [kind for kind, _ in told if kind != "INFO"]
    assert kinds == ["ASSIGNED", "STARTED", run["state"]]
    assert run["current_attempt"] == 1
    if run["state"] == OpRunState.COMPLETED:
        assert run["outputs"] == OUTPUTS
