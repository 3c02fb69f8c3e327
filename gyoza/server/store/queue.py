"""The queue: runs that may be claimed, best first, without a look at those that cannot fit.

What runs need is of few kinds, however many runs there are. The index of the queue keeps the runs
of each kind together, so that the first of each kind is found by one seek; a kind that a worker
cannot serve costs that seek, not a look at each of its runs.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import Any, cast

from sqlalchemy import Connection, Row, bindparam, literal_column, select, text

from gyoza.models import Constraints
from gyoza.server.scheduler import Capacity
from gyoza.server.store.runs import RunRow
from gyoza.server.store.schema import IS_QUEUED, runs

MAX_KINDS = 10_000
"""Kinds of needs that are looked at; what one claim costs is bounded, whatever is submitted."""

# By name, or SQLite may prefer an index by state, and sort.
_QUEUE = "runs AS q INDEXED BY runs_queued"
_FIRST_WHERE = f"""
SELECT q.seq FROM {_QUEUE} WHERE {IS_QUEUED} AND q.id NOT IN :withheld AND %s
ORDER BY q.constraints, q.tags, q.priority DESC, q.seq LIMIT 1
"""
_NEXT_TAGS = "q.constraints = this.constraints AND q.tags > this.tags"
_FIRSTS = f"""
WITH RECURSIVE first(seq) AS (
    SELECT ({_FIRST_WHERE % "true"})
    UNION ALL
    SELECT coalesce(({_FIRST_WHERE % _NEXT_TAGS}),
                    ({_FIRST_WHERE % "q.constraints > this.constraints"}))
    FROM first JOIN runs AS this ON this.seq = first.seq
    LIMIT {MAX_KINDS}
)
SELECT runs.* FROM first JOIN runs ON runs.seq = first.seq
"""
FIRSTS = text(_FIRSTS).bindparams(bindparam("withheld", expanding=True)).columns(*runs.c)
"""The first run of each kind."""

REST = (
    select(runs)
    .where(
        literal_column(IS_QUEUED),
        runs.c.constraints == bindparam("constraints"),
        runs.c.tags == bindparam("tags"),
        runs.c.id.not_in(bindparam("withheld", expanding=True)),
    )
    .order_by(runs.c.priority.desc(), runs.c.seq)
    .offset(1)
    .execution_options(yield_per=100)
)
"""All of a kind but the first."""


ANY = text(f"SELECT q.seq FROM {_QUEUE} WHERE {IS_QUEUED} LIMIT 1")


@dataclass(frozen=True)
class Waiting:
    """A run that may be claimed, as the scheduler looks at it."""

    row: RunRow

    @property
    def constraints(self) -> Constraints:
        """What it needs."""
        return Constraints.from_dict(self.row.constraints)

    @property
    def tags(self) -> list[str]:
        """The tags its worker must have."""
        return cast("list[str]", self.row.tags)


def is_empty(conn: Connection) -> bool:
    """Return whether nobody can claim anything."""
    return conn.scalar(ANY) is None


def firsts(conn: Connection, withheld: Collection[str] = ()) -> list[Waiting]:
    """Return the first run of each kind of needs, but for those withheld, by id."""
    return [Waiting(row) for row in conn.execute(FIRSTS, {"withheld": list(withheld)})]


def read_queue(
    conn: Connection, capacity: Capacity, withheld: Collection[str]
) -> Iterator[Waiting]:
    """Yield what fits a worker, best first.

    Args:
        conn: Where to read; nothing may be written while the iterator is in use.
        capacity: What the worker has left. It may shrink while the iterator is in use, as runs are
            chosen; it cannot grow.
        withheld: Ids of runs that are not for this worker.
    """
    # The number tells kinds apart: rows have no order.
    heads = [(-w.row.priority, w.row.seq, w) for w in firsts(conn, withheld)]
    heapify(heads)
    rests: dict[tuple[str, str], Iterator[Row[Any]]] = {}
    while heads:
        first = heads[0][2]
        if not capacity.fits(first):
            heappop(heads)
            continue
        yield first
        kind = (repr(first.row.constraints), repr(first.row.tags))
        if kind not in rests:
            rests[kind] = _rest(conn, first, withheld)
        if (row := next(rests[kind], None)) is None:
            heappop(heads)
        else:
            heapreplace(heads, (-row.priority, row.seq, Waiting(row)))


def _rest(conn: Connection, first: Waiting, withheld: Collection[str]) -> Iterator[Row[Any]]:
    values = {"constraints": first.row.constraints, "tags": first.row.tags}
    return iter(conn.execute(REST, values | {"withheld": list(withheld)}))
