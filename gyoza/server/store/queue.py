"""The queue: runs that may be claimed, best first, as one worker is to get them.

It is read kind by kind, see `gyoza.server.store.kinds`: what a worker cannot serve now costs a look
at its kind, not at each of its runs.
"""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, literal_column, select, text

from gyoza.models import Constraints
from gyoza.server.scheduler import Capacity, Needs
from gyoza.server.store.runs import RunRow
from gyoza.server.store.schema import IS_QUEUED, runs

# By name, or SQLite may prefer another index, and sort.
KINDS = text(
    "SELECT id, constraints, tags, head_priority, head_seq FROM kinds INDEXED BY kinds_queued "
    "WHERE fits = 1 AND head_seq IS NOT NULL ORDER BY head_priority DESC, head_seq"
)
"""The kinds in the order in which their first runs are to be served."""

ANY = text(
    "SELECT 1 FROM kinds INDEXED BY kinds_queued WHERE fits = 1 AND head_seq IS NOT NULL LIMIT 1"
)

OF_KIND = (
    select(runs)
    .with_hint(runs, "INDEXED BY runs_queued", "sqlite")
    .where(
        literal_column(IS_QUEUED),
        runs.c.kind_id == bindparam("kind"),
        runs.c.id.not_in(bindparam("withheld", expanding=True)),
    )
    .order_by(runs.c.priority.desc(), runs.c.seq)
    .limit(bindparam("limit"))
)
"""The runs of a kind, best first."""

IsKept = Callable[[int, Needs], bool]
"""Returns whether capacity is to be kept for a run, given its `seq` and what it needs."""


class _Head(NamedTuple):
    """The best run that is left of a kind; heads sort in the order of service."""

    minus_priority: int
    seq: int
    kind_id: int
    needs: Needs
    rows: deque[RunRow] | None  # it and those after it, once they were read


def is_empty(conn: Connection) -> bool:
    """Return whether nobody can claim anything."""
    return conn.scalar(ANY) is None


def choose_runs(
    conn: Connection,
    idle: Capacity,
    free: Capacity,
    max_runs: int,
    withheld: Collection[str],
    is_kept: IsKept,
) -> list[RunRow]:
    """Return the runs to assign to a worker, best first.

    If capacity is kept for the first one that does not fit now, nothing that comes after it gets
    what it lacks.

    Args:
        conn: Where to read.
        idle: What the worker has when it is idle.
        free: What it has left; what the chosen runs need is taken from it.
        max_runs: How many it asks for.
        withheld: Ids of runs that are not for this worker.
        is_kept: Is asked for the first one that the worker could have, but not now.
    """
    chosen: list[RunRow] = []
    kept: Constraints | None = None
    asked = False
    with _heads_of_kinds(conn, idle) as kinds:
        heads = _Merged(kinds)
        while len(chosen) < max_runs and (head := heads.pop()):
            need = head.needs.constraints
            if free.lacks(need):
                if not asked and is_kept(head.seq, head.needs):
                    kept = need
                asked = True
            elif kept is None or free.spares(kept, need):
                rows = head.rows
                if rows is None:
                    rows = _rows(conn, head.kind_id, withheld, max_runs - len(chosen))
                if rows and rows[0].seq == head.seq:
                    free.reserve(need)
                    chosen.append(rows.popleft())
                if rows:
                    heads.push(head, rows)
    return chosen


def _rows(conn: Connection, kind_id: int, withheld: Collection[str], limit: int) -> deque[RunRow]:
    which = {"kind": kind_id, "withheld": list(withheld), "limit": limit}
    return deque(conn.execute(OF_KIND, which).all())


@contextmanager
def _heads_of_kinds(conn: Connection, idle: Capacity) -> Generator[Iterator[_Head]]:
    """Read the kinds that a worker could serve when it is idle, in order, as they are needed."""
    with conn.execute(KINDS.execution_options(yield_per=100)) as found:
        yield (
            _Head(-kind.head_priority, kind.head_seq, kind.id, needs, None)
            for kind in found
            if idle.fits(needs := Needs.of(kind.constraints, kind.tags))
        )


class _Merged:
    """Heads that come in order, and those that are put back in between.

    Args:
        kinds: The heads that were not looked at yet.
    """

    def __init__(self, kinds: Iterator[_Head]) -> None:
        self._kinds = kinds
        self._next = next(kinds, None)
        self._back: list[_Head] = []

    def pop(self) -> _Head | None:
        """Take the best head; None if there is none left."""
        if self._back and (self._next is None or self._back[0][:2] < self._next[:2]):
            return heappop(self._back)
        head, self._next = self._next, self._next and next(self._kinds, None)
        return head

    def push(self, head: _Head, rows: deque[RunRow]) -> None:
        """Put a kind back with the runs that are left of it."""
        row = rows[0]
        heappush(self._back, _Head(-row.priority, row.seq, head.kind_id, head.needs, rows))
