"""The marks of containers: what each said of itself, as the recorder wrote it down.

And what workers say of the runs they get: the claim whose answer was lost is not in their logs.
"""

import re
from dataclasses import dataclass

_CLAIMED = re.compile(r"Run (\S+): attempt (\d+) of ")


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


def read_marks(text: str) -> list[Mark]:
    """Read the recorder's file; a mark that a container repeated counts once."""
    marks: dict[tuple[str, ...], Mark] = {}
    for line in text.splitlines():
        at, what, run_id, attempt, nonce = line.split()
        mark = Mark(float(at), what, run_id, int(attempt), nonce)
        marks.setdefault((what, run_id, attempt, nonce), mark)
    return list(marks.values())


def read_claims(log: str) -> set[tuple[str, int]]:
    """Return the runs and attempts that a worker has got, out of its log."""
    return {(found[1], int(found[2])) for found in _CLAIMED.finditer(log)}
