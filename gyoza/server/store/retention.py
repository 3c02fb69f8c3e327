"""Retention: runs that ended long ago are deleted with all that is theirs, a few at a time."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Integer, Row, delete, func, literal_column, select

from gyoza.server.store.database import Tx
from gyoza.server.store.schema import (
    HAS_ENDED,
    attempts,
    deliveries,
    events,
    feed,
    kinds,
    log_chunks,
    run_data,
    runs,
    text_parts,
    texts,
)
from gyoza.server.store.workers import forget_silent_workers

MAX_RUNS, MAX_EVENTS, MAX_CHUNKS = 100, 2_000, 100
"""What one transaction deletes, more or less: others wait for it."""

EVERY_S = 60.0
"""Runs that end one after the other are deleted together."""


def prune(tx: Tx, keep_s: float) -> float:
    """Delete some of the runs that ended more than `keep_s` seconds ago, and what is left over.

    Those are workers that were silent for as long, and kinds of needs that no run has.

    Returns:
        When to look again, in seconds since 1970; now, if there is more to delete.
    """
    of_kind = select(runs.c.id).where(runs.c.kind_id == kinds.c.id)
    ended = (
        select(runs.c.id, runs.c.event_count)
        .where(literal_column(HAS_ENDED), runs.c.updated_at <= tx.now - keep_s)
        .order_by(runs.c.updated_at)
        .limit(MAX_RUNS)
    )
    old = tx.conn.execute(ended).all()
    if old:
        _delete(tx, _some_of(old))
        return tx.now
    oldest = tx.conn.scalar(select(func.min(runs.c.updated_at)).where(literal_column(HAS_ENDED)))
    forget_silent_workers(tx, tx.now - keep_s)
    tx.conn.execute(delete(kinds).where(~of_kind.exists()))
    # Nothing that ends from now on is due before what is there, or else before as long from now.
    return max(min(oldest or tx.now, tx.now) + keep_s, tx.now + EVERY_S)


def _some_of(old: Sequence[Row[Any, Any]]) -> list[str]:
    ids: list[str] = []
    count = 0
    for run in old:
        ids.append(run.id)
        count += run.event_count
        if count >= MAX_EVENTS:
            break
    return ids


def _delete(tx: Tx, ids: list[str]) -> None:
    rowid = literal_column("rowid", Integer)
    of_texts = select(texts.c.id).where(texts.c.run_id.in_(ids))
    for table, belongs in (
        (log_chunks, log_chunks.c.run_id.in_(ids)),
        (text_parts, text_parts.c.text_id.in_(of_texts)),
    ):
        some = select(rowid).select_from(table).where(belongs).limit(MAX_CHUNKS)
        deleted = tx.conn.execute(delete(table).where(rowid.in_(some))).rowcount
        if deleted == MAX_CHUNKS:  # perhaps not all; the runs go once these are gone
            return
    for table in (feed, deliveries, events, attempts, texts, run_data):
        tx.conn.execute(delete(table).where(table.c.run_id.in_(ids)))
    tx.conn.execute(delete(runs).where(runs.c.id.in_(ids)))
