"""Kinds of needs: runs that need the same are of one kind, however many they are.

Each kind keeps which of its runs is first in the queue. So a claim reads the kinds in the order in
which they are to be served, and no run but those that it gives. A kind that no known worker could
ever serve is parked: it costs the claims of the others nothing, however many such kinds there are.
"""

from functools import lru_cache

from sqlalchemy import Connection, bindparam, insert, select, text, update

from gyoza.models import Constraints
from gyoza.server.json_text import write_text
from gyoza.server.scheduler import Capacity, Needs
from gyoza.server.store.database import Tx
from gyoza.server.store.schema import IS_QUEUED, kinds, workers

_FIND = select(kinds.c.id).where(
    kinds.c.constraints == bindparam("constraints"), kinds.c.tags == bindparam("tags")
)
_REFRESH = text(
    "UPDATE kinds SET (head_priority, head_seq) = (SELECT q.priority, q.seq "
    f"FROM runs AS q INDEXED BY runs_queued WHERE {IS_QUEUED} AND q.kind_id = kinds.id "
    "ORDER BY q.priority DESC, q.seq LIMIT 1) WHERE id = :kind "
    "RETURNING fits, constraints, tags"
)
_PARKED = text(
    "SELECT id, constraints, tags FROM kinds INDEXED BY kinds_parked "
    "WHERE fits = 0 AND head_seq IS NOT NULL"
)
_UNPARK = text("UPDATE kinds SET fits = 1 WHERE id IN (SELECT value FROM json_each(:kinds))")
_OFFERS = select(workers.c.offer).where(workers.c.offer != "").distinct()

read_offer = lru_cache(maxsize=1024)(Capacity.from_text)
"""Returns what a worker has when idle, which many have alike: nobody may change it."""


def kind_of(tx: Tx, constraints: Constraints, tags: list[str]) -> int:
    """Return the id of the kind of runs that need this, which is made if it is new."""
    needs = {"constraints": constraints.to_dict(), "tags": sorted(set(tags))}
    known = tx.conn.scalar(_FIND, needs)
    if known is not None:
        return known
    made = tx.conn.execute(insert(kinds).values(fits=0, **needs).returning(kinds.c.id))
    return made.scalar_one()


def refresh(tx: Tx, kind_id: int) -> None:
    """Note which run of a kind is first now: one of them came, went or has another priority."""
    kind = tx.conn.execute(_REFRESH, {"kind": kind_id}).one()
    if not kind.fits:
        needs = Needs.of(kind.constraints, kind.tags)
        if any(offer.fits(needs) for offer in _offers(tx.conn)):
            tx.conn.execute(update(kinds).where(kinds.c.id == kind_id).values(fits=1))


def unpark(tx: Tx, offer: Capacity) -> bool:
    """Let workers look at the kinds that a new offer could serve; return whether there is one."""
    served = [
        kind.id
        for kind in tx.conn.execute(_PARKED)
        if offer.fits(Needs.of(kind.constraints, kind.tags))
    ]
    if served:
        tx.conn.execute(_UNPARK, {"kinds": write_text(served)})
    return bool(served)


def _offers(conn: Connection) -> list[Capacity]:
    return [read_offer(offer) for offer in conn.scalars(_OFFERS)]
