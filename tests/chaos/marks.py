"""The marks of containers: what each said of itself, as the recorder wrote it down."""

from dataclasses import dataclass


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
