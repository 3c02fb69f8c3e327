"""What containers and workers said of themselves.

Containers by marks, which the recorder wrote down; workers in their logs, of the runs they got and
of those they had to let go of before the server knew.
"""

import re
from dataclasses import dataclass

_CLAIMED = re.compile(r"Run (\S+): attempt (\d+) of |Run (\S+) was not given back")


@dataclass(frozen=True)
class Mark:
    """What a container said of itself.

    Attributes:
        at: Wall-clock time in seconds.
        what: `start` or `end`.
        nonce: Tells the container from every other.
    """

    at: float
    what: str
    run_id: str
    attempt: int
    nonce: str


@dataclass(frozen=True)
class Claims:
    """What a worker said of its runs, each with its attempt.

    Attributes:
        got: Those it had. The claim whose answer was lost gave it none.
        let_go: Of these, those it tried to give back to a server that was away.
    """

    got: set[tuple[str, int]]
    let_go: set[tuple[str, int]]


def read_marks(text: str) -> list[Mark]:
    """Read the recorder's file; a mark that a container repeated counts once."""
    marks: dict[tuple[str, ...], Mark] = {}
    for line in text.splitlines():
        at, what, run_id, attempt, nonce = line.split()
        mark = Mark(float(at), what, run_id, int(attempt), nonce)
        marks.setdefault((what, run_id, attempt, nonce), mark)
    return list(marks.values())


def read_claims(log: str) -> Claims:
    """Read a worker's log."""
    got: set[tuple[str, int]] = set()
    let_go: set[tuple[str, int]] = set()
    for found in _CLAIMED.finditer(log):
        if found[1]:
            got.add((found[1], int(found[2])))
        else:
            let_go |= {(run_id, attempt) for run_id, attempt in got if run_id == found[3]}
    return Claims(got, let_go)
