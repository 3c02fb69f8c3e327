"""What the containers of a chaos run do: the plan of all runs, and what each must leave behind."""

import random
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice
from typing import Any

from gyoza.models import EventType

PARTS = 10
"""In so many parts a chatty op writes, with an event after each."""

STDERR_LETTERS = "ABCDEFGHIJ;"
"""Digits and line end as a chatty op writes them to standard error, and nobody else."""


class Kind(StrEnum):
    """What an op does; `op.sh` takes it as its first argument."""

    QUICK = "quick"
    SLEEPING = "sleeping"
    FAILING = "failing"
    CHATTY = "chatty"
    STUBBORN = "stubborn"
    PRODUCTIVE = "productive"


@dataclass(frozen=True)
class Cancel:
    """When a run is to be cancelled.

    Attributes:
        after: The event it follows; None follows the submission.
        delay_s: How long after that, in seconds.
    """

    after: EventType | None
    delay_s: float


@dataclass(frozen=True)
class PlannedRun:
    """One run as it was drawn.

    Attributes:
        number: Position in the plan; its inputs hold it.
        at_s: When it is handed in, in seconds since the first one may be.
        amount: Seconds, lines in each part, or items of the output, as the kind wants it.
        code: What the op exits with.
    """

    number: int
    at_s: float
    kind: Kind
    amount: int
    code: int
    cancel: Cancel | None

    @property
    def inputs(self) -> dict[str, Any]:
        """What is handed to the op, which hands it back."""
        return {"number": self.number, "kind": self.kind.value}

    @property
    def command(self) -> list[str]:
        """What the container runs."""
        return ["sh", "/op.sh", self.kind.value, str(self.amount), str(self.code)]

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"run {self.number} ({self.kind})"


_AMOUNTS: dict[Kind, tuple[int, int]] = {
    Kind.QUICK: (0, 0),
    Kind.SLEEPING: (1, 12),
    Kind.FAILING: (0, 2),
    Kind.CHATTY: (200, 1000),
    Kind.STUBBORN: (1, 10),
    Kind.PRODUCTIVE: (1, 5000),
}
_MOMENTS = (None, EventType.ASSIGNED, EventType.STARTED, EventType.STARTED)
CANCELLED = 0.2


def plan_runs(rng: random.Random, count: int, within_s: float) -> list[PlannedRun]:
    """Draw the runs: each kind has its share, each run its moment within so many seconds."""
    kinds = list(islice(cycle(Kind), count))
    rng.shuffle(kinds)
    moments = sorted(rng.uniform(0, within_s) for _ in kinds)
    return [
        _draw(rng, number, at_s, kind)
        for number, (at_s, kind) in enumerate(zip(moments, kinds, strict=True))
    ]


def _draw(rng: random.Random, number: int, at_s: float, kind: Kind) -> PlannedRun:
    code = rng.randint(1, 99) if kind is Kind.FAILING else 0
    cancel = None
    if rng.random() < CANCELLED:
        cancel = Cancel(rng.choice(_MOMENTS), round(rng.uniform(0, 2), 2))
    return PlannedRun(number, at_s, kind, rng.randint(*_AMOUNTS[kind]), code, cancel)


def expected_outputs(planned: PlannedRun, attempt: int, nonce: str) -> dict[str, Any]:
    """Return the outputs of the container with this nonce."""
    items = planned.amount if planned.kind is Kind.PRODUCTIVE else 0
    return {
        "attempt": attempt,
        "nonce": nonce,
        "items": list(range(1, items + 1)),
        "inputs": planned.inputs,
    }


def expected_events(planned: PlannedRun) -> list[str]:
    """Return the messages of the events that a container sends by itself."""
    if planned.kind is not Kind.CHATTY:
        return []
    return [f"part {part}" for part in range(1, PARTS + 1)]


def expected_stdout(planned: PlannedRun, attempt: int, nonce: str) -> list[str]:
    """Return the lines of standard output of the container with this nonce."""
    body: list[str] = []
    if planned.kind in (Kind.SLEEPING, Kind.STUBBORN):
        body = [f"second {second}" for second in range(1, planned.amount + 1)]
    elif planned.kind is Kind.CHATTY:
        body = [f"line {line}" for line in range(1, PARTS * planned.amount + 1)]
    return [f"container {nonce} of attempt {attempt}", *body, "end"]


def expected_stderr(planned: PlannedRun) -> list[str]:
    """Return the lines of standard error, their letters back to digits."""
    if planned.kind is not Kind.CHATTY:
        return []
    return [str(line) for line in range(1, PARTS * planned.amount + 1)]


def split_log(log: str) -> tuple[list[str], list[str]]:
    """Return the lines of standard output and of standard error, wherever one interrupted it.

    Empty lines do not count: the engine ends a last line that has no end, but only where its own
    copy of the output is read.
    """
    stderr = "".join(letter for letter in log if letter in STDERR_LETTERS)
    stdout = "".join(letter for letter in log if letter not in STDERR_LETTERS)
    numbers = stderr.translate(str.maketrans(STDERR_LETTERS, "0123456789\n"))
    return [line for line in stdout.split("\n") if line], numbers.split()
