"""Runs: creating, finding and listing them.

What may be large of them, inputs, outputs and events, is read as the JSON it is stored as.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import (
    Connection,
    LargeBinary,
    Row,
    Select,
    bindparam,
    select,
)
from sqlalchemy import cast as as_type
from sqlalchemy.sql import ColumnElement

from gyoza.models import (
    Constraints,
    EventDelivery,
    ExecutionSummary,
    OpAttempt,
    OpRun,
    OpRunState,
    RetryPolicy,
)
from gyoza.models.limits import PAGE_BYTES
from gyoza.models.record import format_time
from gyoza.server.errors import BadRequest, NotFound
from gyoza.server.json_text import join_list
from gyoza.server.store.pages import within
from gyoza.server.store.schema import attempts, events, run_data, runs
from gyoza.server.store.texts import read_text


def as_json(column: ColumnElement[Any]) -> ColumnElement[bytes]:
    """Select a JSON column as the bytes it is stored as."""
    return as_type(column, LargeBinary)


# Statements of every request are made once: to make one costs as much as to execute it.
_FIND = select(runs).where(runs.c.id == bindparam("run"))
_SPECS = select(run_data.c.run_id, run_data.c.spec).where(
    run_data.c.run_id.in_(bindparam("ids", expanding=True))
)
_DATA = select(
    run_data.c.spec,
    as_json(run_data.c.inputs).label("inputs"),
    as_json(run_data.c.outputs).label("outputs"),
).where(run_data.c.run_id == bindparam("run"))
EVENT: tuple[ColumnElement[Any], ...] = (
    events.c.id,
    events.c.attempt,
    events.c.type,
    events.c.time,
    events.c.state,
    as_json(events.c.msg).label("msg"),
    as_json(events.c.payload).label("payload"),
    events.c.created_by,
)
"""What `event_text` needs."""

_EVENTS = (
    select(*EVENT)
    .where(
        events.c.run_id == bindparam("run"),
        events.c.id >= bindparam("first"),
        events.c.id < bindparam("end"),
    )
    .order_by(events.c.id)
)

Json = dict[str, Any]
RunRow = Row[Any]
"""A row of `runs`: small, without inputs, outputs and events."""


@dataclass(frozen=True)
class RunFilter:
    """Which runs a list shows; None shows all.

    Attributes:
        id_prefix: How their ids begin.
    """

    state: OpRunState | None = None
    op_definition: str | None = None
    image: str | None = None
    topic: str | None = None
    id_prefix: str | None = None


@dataclass(frozen=True)
class StoredRun:
    """A run as it is read to be shown.

    Attributes:
        run: All but its inputs, outputs and events.
        texts: Those, as JSON.
    """

    run: OpRun
    texts: dict[str, bytes]


def author_of(row: Row[Any]) -> dict[str, str] | None:
    """Return the id and name of the API key that something was made with."""
    return None if row.created_by is None else json.loads(row.created_by)


def at(seconds: float | None) -> datetime | None:
    """Return a stored time as a datetime in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def find_row(conn: Connection, run_id: str) -> RunRow:
    """Return the row of a run.

    Raises:
        NotFound: If there is no such run.
    """
    row = conn.execute(_FIND, {"run": run_id}).one_or_none()
    if row is None:
        raise NotFound.of("run", run_id)
    return row


def load_run(
    conn: Connection, row: RunRow, first_event: int = 0, *, news: bool = False
) -> StoredRun:
    """Return a run as its row says.

    Args:
        conn: Where to read.
        row: The run.
        first_event: The first of its events to read.
        news: Whether to leave out its inputs, and its outputs while it has not ended.
    """
    data = conn.execute(_DATA, {"run": row.id}).one()
    ended = OpRunState(row.state).terminal
    texts = {
        "inputs": b"{}" if news else read_text(conn, data.inputs),
        "outputs": b"{}" if news and not ended else read_text(conn, data.outputs),
        "events": join_list(_events(conn, row, first_event)),
    }
    return StoredRun(_to_run(row, data.spec), texts)


def list_runs(
    conn: Connection,
    which: RunFilter,
    limit: int,
    starting_after: str | None = None,
    ending_before: str | None = None,
) -> tuple[list[OpRun], bool]:
    """Return runs, newest first, and whether there are more in that direction.

    They come without inputs, outputs and events; with a prefix of their ids in the order of these.

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
    elif which.id_prefix:
        query = query.order_by(runs.c.id)
    else:
        query = query.order_by(runs.c.seq.desc())
    rows = conn.execute(query.limit(limit + 1)).all()
    page = list(within(rows[:limit], lambda row: row.spec_bytes, PAGE_BYTES))
    more = len(rows) > len(page)
    if ending_before is not None:
        page.reverse()
    found = conn.execute(_SPECS, {"ids": [row.id for row in page]})
    specs = {row.run_id: row.spec for row in found}
    return [_to_run(row, specs[row.id]) for row in page], more


def load_attempts(conn: Connection, run_id: str) -> list[OpAttempt]:
    """Return the attempts of a run, without inputs, outputs and events, oldest first.

    Raises:
        NotFound: If there is no such run.
    """
    run = find_row(conn, run_id)
    rows = conn.execute(
        select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.attempt)
    )
    return [
        OpAttempt(
            id=f"{run_id}-{row.attempt}",
            op_run_id=run_id,
            attempt=row.attempt,
            state=OpRunState(row.state),
            progress=row.progress,
            execution_summary=ExecutionSummary.from_dict(row.summary),
            constraints=Constraints.from_dict(run.constraints),
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
    if prefix := which.id_prefix:
        # By its index: all ids that begin so are one range of it, below the next possible prefix.
        following = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        query = query.where(runs.c.id >= prefix, runs.c.id < following)
    return query


def _seq(conn: Connection, run_id: str) -> int:
    seq = conn.scalar(select(runs.c.seq).where(runs.c.id == run_id))
    if seq is None:
        raise BadRequest(f"{run_id[:80]!r} is not the id of a run, so no page can start there.")
    return seq


def _events(conn: Connection, run: RunRow, first: int) -> Iterator[bytes]:
    which: Json = {"run": run.id, "first": first, "end": run.event_count}
    rows = cast("Iterable[Row[Any]]", conn.execute(_EVENTS, which))
    return (event_text(conn, row) for row in rows)


def event_text(conn: Connection, row: Row[Any]) -> bytes:
    """Return the JSON of an event, of which `EVENT` was selected."""
    time = format_time(datetime.fromtimestamp(row.time, UTC))
    known = f'{{"id":{row.id},"type":"{row.type}","t":"{time}","state":"{row.state}"'
    author = f',"created_by":{row.created_by or "null"}'
    told = (row.msg, read_text(conn, row.payload), author.encode())
    return b'%b,"msg":%b,"payload":%b%b}' % (known.encode(), *told)


def _to_run(row: RunRow, spec: Json) -> OpRun:
    return OpRun(
        id=row.id,
        state=OpRunState(row.state),
        progress=row.progress,
        current_attempt=row.current_attempt,
        priority=row.priority,
        image=row.image,
        command=spec["command"],
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
        created_by=author_of(row),
    )
