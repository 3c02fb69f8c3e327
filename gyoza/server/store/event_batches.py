"""Events of an op that a worker tells many at a time: all of them are taken, or none."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select, update

from gyoza.models import EventType
from gyoza.server.errors import Full
from gyoza.server.store.database import Tx
from gyoza.server.store.reports import (
    MAX_EVENT_BYTES,
    MAX_EVENTS,
    Report,
    check_current,
    find_held_attempt,
    size_of,
)
from gyoza.server.store.runs import Json, RunRow, find_row
from gyoza.server.store.schema import attempts, events, feed, run_data, runs
from gyoza.server.wakeups import feed_key, run_key


def add_events(
    tx: Tx, run_id: str, worker_id: str, number: int, reports: Sequence[Report]
) -> RunRow:
    """Take INFO, ERROR and PROGRESS of an attempt in their order, less what it has already.

    Returns:
        The run as it was before.

    Raises:
        NotFound: If there is no such run.
        Conflict: If the run has ended, or is not held by this worker and attempt.
        Full: If one of them is too large, or the run's events would say more than they may. Told
            one by one, those that have room are taken.
    """
    run = find_row(tx.conn, run_id)
    attempt = find_held_attempt(tx, run, worker_id, number)
    check_current(run, number, worker_id)
    fresh = [report for report in reports if (report.seq or 0) > attempt.last_seq]
    if not fresh:
        return run
    size = run.event_bytes + sum(map(size_of, fresh))
    if run.event_count + len(fresh) > MAX_EVENTS or size > MAX_EVENT_BYTES:
        raise Full(f"The events of run {run.id} have no room for {len(fresh)} more.")
    _insert(tx, run, fresh)
    progress = [report.msg for report in fresh if report.type is EventType.PROGRESS]
    said: Json = {"progress": progress[-1]} if progress else {}
    tx.conn.execute(
        update(attempts)
        .where(attempts.c.run_id == run.id, attempts.c.attempt == number)
        .values(last_seq=max(report.seq or 0 for report in fresh), **said)
    )
    tx.conn.execute(
        update(runs)
        .where(runs.c.id == run.id)
        .values(
            event_count=run.event_count + len(fresh), event_bytes=size, updated_at=tx.now, **said
        )
    )
    return run


def _insert(tx: Tx, run: RunRow, reports: Sequence[Report]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "run_id": run.id,
            "id": run.event_count + number,
            "attempt": run.current_attempt,
            "type": report.type,
            "time": tx.now,
            "msg": report.msg,
            "payload": report.payload,
            "state": run.state,
        }
        for number, report in enumerate(reports)
    ]
    tx.conn.execute(insert(events), rows)
    tx.wake.add(run_key(run.id))
    if run.topic:
        spec = tx.conn.execute(
            select(run_data.c.spec["event_delivery"]).where(run_data.c.run_id == run.id)
        ).scalar_one()
        shown: Json = {
            "topic": run.topic,
            "run_id": run.id,
            "attributes": spec["attributes"],
        }
        tx.conn.execute(insert(feed), [shown | {"event_id": row["id"]} for row in rows])
        tx.wake.add(feed_key(run.topic))
