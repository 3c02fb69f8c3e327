"""Runs: creating, finding and listing them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import JSON, Connection, Row, Select, bindparam, func, insert, select

from gyoza.models import (
    Constraints,
    EventDelivery,
    EventEntry,
    ExecutionSummary,
    OpAttempt,
    OpRun,
    OpRunState,
    RetryPolicy,
)
from gyoza.server.errors import BadRequest, NotFound
from gyoza.server.store.database import Tx
from gyoza.server.store.schema import attempts, events, run_data, runs
from gyoza.server.wakeups import CLAIMS

KEPT = (
    "command",
    "inputs",
    "env_vars",
    "secrets",
    "timeout_s",
    "grace_s",
    "retry_policy",
    "event_delivery",
)
"""What of a run goes into `run_data.spec`."""

# Statements of every request are made once: to make one costs as much as to execute it.
_FIND = select(runs).where(runs.c.id == bindparam("run"))
_OF_RUNS = run_data.c.run_id.in_(bindparam("ids", expanding=True))
_DATA = select(run_data).where(_OF_RUNS)
_SMALL_DATA = select(
    run_data.c.run_id, func.json_remove(run_data.c.spec, "$.inputs", type_=JSON).label("spec")
).where(_OF_RUNS)
"""All but inputs and outputs, which may be large, and are never read for it."""

_EVENTS = (
    select(events)
    .where(events.c.run_id == bindparam("run"), events.c.id >= bindparam("first"))
    .order_by(events.c.id)
)
_INSERT, _INSERT_DATA = insert(runs), insert(run_data)

Json = dict[str, Any]
RunRow = Row[Any]
"""A row of `runs`: small, without inputs, outputs and events."""


@dataclass(frozen=True)
class RunFilter:
    """Which runs a list shows; None shows all."""

    state: OpRunState | None = None
    op_definition: str | None = None
    image: str | None = None
    topic: str | None = None


def at(seconds: float | None) -> datetime | None:
    """Return a stored time as a datetime in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def create_run(tx: Tx, asked: OpRun, idempotency_key: str | None = None) -> str:
    """Store a new run and return its id; a known idempotency key returns the run it made."""
    if (known := find_by_key(tx.conn, idempotency_key)) is not None:
        return known
    run_id = uuid.uuid4().hex
    spec = asked.to_dict()
    row: Json = {
        "id": run_id,
        "idempotency_key": idempotency_key,
        "state": OpRunState.PENDING,
        "priority": asked.priority,
        "image": asked.image,
        "op_definition": asked.op_definition,
        "topic": asked.event_delivery.topic,
        "constraints": spec["constraints"],
        "tags": asked.tags,
        "max_attempts": asked.retry_policy.max_attempts,
        "backoff_s": asked.retry_policy.backoff_s,
        "summary": {},
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    tx.conn.execute(_INSERT, row)
    kept = {name: spec[name] for name in KEPT}
    tx.conn.execute(_INSERT_DATA, {"run_id": run_id, "spec": kept, "outputs": {}})
    tx.wake.add(CLAIMS)
    return run_id


def find_by_key(conn: Connection, idempotency_key: str | None) -> str | None:
    """Return the id of the run that was made under a key, if there is one."""
    if idempotency_key is None:
        return None
    return conn.scalar(select(runs.c.id).where(runs.c.idempotency_key == idempotency_key))


def find_row(conn: Connection, run_id: str) -> RunRow:
    """Return the row of a run.

    Raises:
        NotFound: If there is no such run.
    """
    row = conn.execute(_FIND, {"run": run_id}).one_or_none()
    if row is None:
        raise NotFound.of("run", run_id)
    return row


def load_run(conn: Connection, run_id: str, first_event: int = 0) -> OpRun:
    """Return a run with its events from number `first_event` on.

    Raises:
        NotFound: If there is no such run.
    """
    run = _with_data(conn, [find_row(conn, run_id)])[0]
    run.events = [entry for _, entry in _events(conn, run_id, first_event)]
    return run


def list_runs(
    conn: Connection,
    which: RunFilter,
    limit: int,
    starting_after: str | None = None,
    ending_before: str | None = None,
) -> tuple[list[OpRun], bool]:
    """Return runs, newest first, and whether there are more in that direction.

    They come without inputs, outputs and events.

    Args:
        conn: Where to read.
        which: Which runs to show.
        limit: How many, at most.
        starting_after: Id of a run; show those created before it.
        ending_before: Id of a run; show those created after it, the nearest to it.

    Raises:
        BadRequest: If a cursor is not the id of a run.
    """
    query = _filtered(which)
    if starting_after is not None:
        query = query.where(runs.c.seq < _seq(conn, starting_after))
    if ending_before is not None:
        query = query.where(runs.c.seq > _seq(conn, ending_before)).order_by(runs.c.seq)
    else:
        query = query.order_by(runs.c.seq.desc())
    rows = conn.execute(query.limit(limit + 1)).all()
    page = list(rows[:limit])
    if ending_before is not None:
        page.reverse()
    found = conn.execute(_SMALL_DATA, {"ids": [row.id for row in page]})
    specs = {row.run_id: row.spec for row in found}
    return [_to_run(row, specs[row.id], {}) for row in page], len(rows) > limit


def load_attempts(conn: Connection, run_id: str) -> list[OpAttempt]:
    """Return the attempts of a run with their events, oldest first.

    Raises:
        NotFound: If there is no such run.
    """
    run = _with_data(conn, [find_row(conn, run_id)])[0]
    entries = _events(conn, run_id)
    rows = conn.execute(
        select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.attempt)
    ).all()
    return [
        OpAttempt(
            id=f"{run_id}-{row.attempt}",
            op_run_id=run_id,
            attempt=row.attempt,
            state=OpRunState(row.state),
            progress=row.progress,
            events=[entry for attempt, entry in entries if attempt == row.attempt],
            inputs=run.inputs,
            # Only the last attempt can have completed.
            outputs=run.outputs if row.attempt == run.current_attempt else {},
            execution_summary=ExecutionSummary.from_dict(row.summary),
            constraints=run.constraints,
            started_at=at(row.started_at),
            finished_at=at(row.finished_at),
        )
        for row in rows
    ]


def _filtered(which: RunFilter) -> Select[Any]:
    query = select(runs)
    for column, wanted in (
        (runs.c.state, which.state),
        (runs.c.op_definition, which.op_definition),
        (runs.c.image, which.image),
        (runs.c.topic, which.topic),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    return query


def _seq(conn: Connection, run_id: str) -> int:
    seq = conn.scalar(select(runs.c.seq).where(runs.c.id == run_id))
    if seq is None:
        raise BadRequest(f"{run_id[:80]!r} is not the id of a run, so no page can start there.")
    return seq


def _events(conn: Connection, run_id: str, first: int = 0) -> list[tuple[int, EventEntry]]:
    rows = conn.execute(_EVENTS, {"run": run_id, "first": first})
    return [(row.attempt, to_entry(row)) for row in rows]


def to_entry(row: Row[Any]) -> EventEntry:
    """Return a row of `events` as the model."""
    return EventEntry(
        t=datetime.fromtimestamp(row.time, UTC),
        type=row.type,
        msg=row.msg,
        payload=row.payload,
        id=row.id,
        state=OpRunState(row.state),
    )


def _with_data(conn: Connection, rows: Sequence[RunRow]) -> list[OpRun]:
    data = {row.run_id: row for row in conn.execute(_DATA, {"ids": [row.id for row in rows]})}
    return [_to_run(row, data[row.id].spec, data[row.id].outputs) for row in rows]


def _to_run(row: RunRow, spec: Json, outputs: Json) -> OpRun:
    return OpRun(
        id=row.id,
        state=OpRunState(row.state),
        progress=row.progress,
        current_attempt=row.current_attempt,
        priority=row.priority,
        image=row.image,
        command=spec["command"],
        inputs=spec.get("inputs", {}),
        outputs=outputs,
        env_vars=spec["env_vars"],
        secrets=spec.get("secrets", []),  # older databases hold runs without them
        constraints=Constraints.from_dict(row.constraints),
        tags=cast("list[str]", row.tags),
        timeout_s=spec["timeout_s"],
        grace_s=spec.get("grace_s"),
        retry_policy=RetryPolicy.from_dict(spec["retry_policy"]),
        event_delivery=EventDelivery.from_dict(spec["event_delivery"]),
        op_definition=row.op_definition,
        worker_id=row.worker_id,
        execution_summary=ExecutionSummary.from_dict(row.summary),
        created_at=at(row.created_at),
        updated_at=at(row.updated_at),
    )
