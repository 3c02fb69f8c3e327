"""Workers: what their heartbeats say, the leases these renew, and news about their runs."""

from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, select, text, update
from sqlalchemy.dialects import sqlite

from gyoza.models import OpRunState
from gyoza.models.record import format_time
from gyoza.server.errors import NotFound
from gyoza.server.json_text import write_text
from gyoza.server.store import transitions
from gyoza.server.store.database import Tx
from gyoza.server.store.runs import Json, at
from gyoza.server.store.schema import changes, runs, workers
from gyoza.server.wakeups import worker_key

HELD = (OpRunState.ASSIGNED, OpRunState.RUNNING)
UNSHOWN = ("worker_id", "marks_log_end")
KEEP_CHANGES_S = 24 * 3600.0

_FIND = select(workers).where(workers.c.id == bindparam("worker"))
_KNOWN = sqlite.insert(workers)
_BEAT = _KNOWN.on_conflict_do_update(
    index_elements=["id"],
    set_={name: _KNOWN.excluded[name] for name in ("heartbeat", "last_seen")},
).returning(workers)
# One parameter for all of them: a statement with one for each is made anew each time.
_LISTED = select(func.json_each(bindparam("listed")).table_valued("value").c.value)
_MINE = runs.c.id.in_(_LISTED), runs.c.worker_id == bindparam("worker")
_STATES = select(runs.c.id, runs.c.state).where(*_MINE)
_RENEW = update(runs).where(*_MINE, runs.c.state.in_(HELD))
_CHANGES = (
    select(changes)
    .where(changes.c.worker_id == bindparam("worker"), changes.c.seq > bindparam("after"))
    .order_by(changes.c.seq)
)
_LAST_CHANGE = text("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")


def beat(tx: Tx, heartbeat: Json, lease_s: float, *, claiming: bool) -> Json:
    """Take a heartbeat: register the worker, renew its leases, answer with its runs' states.

    Args:
        tx: The transaction.
        heartbeat: What the worker sent, checked.
        lease_s: How long the leases of the runs it lists last from now, in seconds.
        claiming: Whether a claim of this worker is being answered; then a run that it does not
            list may be on its way to it.
    """
    worker_id: str = heartbeat["worker_id"]
    before = _find(tx.conn, worker_id)
    told: Json = {"id": worker_id, "heartbeat": heartbeat}
    now = tx.conn.execute(_BEAT, told | {"first_seen": tx.now, "last_seen": tx.now}).one()
    listed: list[str] = [op["id"] for op in heartbeat["running_ops"]]
    if listed:
        mine: Json = {"worker": worker_id, "listed": write_text(listed)}
        tx.conn.execute(_RENEW, {**mine, "lease_until": tx.now + lease_s})
    if before is not None and (_has_let_go(before, listed) or is_able(now) > is_able(before)):
        tx.wake.add(worker_key(worker_id))
    if heartbeat["draining"]:
        tx.wake.add(worker_key(worker_id))
        if not claiming:
            _take_back_unlisted(tx, worker_id, listed)
    return {
        "lease_s": lease_s,
        "states": _states(tx.conn, worker_id, listed) if listed else {},
        "drain": bool(now.drain),
    }


def _has_let_go(before: Row[Any], listed: list[str]) -> bool:
    """Return whether a run is listed no more: it may go to the same worker once again."""
    still = set(listed)
    return any(op["id"] not in still for op in before.heartbeat["running_ops"])


def _take_back_unlisted(tx: Tx, worker_id: str, listed: list[str]) -> None:
    query = select(runs).where(
        runs.c.worker_id == worker_id,
        runs.c.state == OpRunState.ASSIGNED,
        runs.c.id.not_in(_LISTED),
    )
    for run in tx.conn.execute(query, {"listed": write_text(listed)}).all():
        transitions.requeue(tx, run, "DRAINING", f"worker {worker_id} drains and never had it")


def _states(conn: Connection, worker_id: str, listed: list[str]) -> dict[str, str]:
    """Return the state of each listed run; PENDING for one this worker does not hold any more."""
    mine = conn.execute(_STATES, {"worker": worker_id, "listed": write_text(listed)})
    known = {row.id: row.state for row in mine}
    return {run_id: known.get(run_id, OpRunState.PENDING.value) for run_id in listed}


def find_worker(conn: Connection, worker_id: str) -> Row[Any]:
    """Return the row of a worker.

    Raises:
        NotFound: If no heartbeat of it ever came.
    """
    row = _find(conn, worker_id)
    if row is None:
        raise NotFound(f"There is no worker {worker_id[:80]!r}; it must send a heartbeat first.")
    return row


def _find(conn: Connection, worker_id: str) -> Row[Any] | None:
    return conn.execute(_FIND, {"worker": worker_id}).one_or_none()


def set_drain(tx: Tx, worker_id: str, *, drain: bool) -> None:
    """Give a worker no more runs, or runs again.

    Raises:
        NotFound: If there is no such worker.
    """
    find_worker(tx.conn, worker_id)
    tx.conn.execute(update(workers).where(workers.c.id == worker_id).values(drain=int(drain)))
    tx.wake.add(worker_key(worker_id))


def is_draining(worker: Row[Any]) -> bool:
    """Return whether a worker is to get nothing new, by a person's wish or its own."""
    return bool(worker.drain) or bool(worker.heartbeat["draining"])


def is_able(worker: Row[Any]) -> bool:
    """Return whether a worker could do anything with a run, as far as its heartbeat tells."""
    told = worker.heartbeat
    return told.get("engine") != "unavailable" and told.get("disk") != "low"


def show_workers(conn: Connection, heard_since: float) -> list[Json]:
    """Return all workers for the API; those not heard of since `heard_since` are lost."""
    rows = conn.execute(select(workers).order_by(workers.c.id)).all()
    return [_show(row, heard_since) for row in rows]


def show_worker(conn: Connection, worker_id: str, heard_since: float) -> Json:
    """Return one worker for the API.

    Raises:
        NotFound: If there is no such worker.
    """
    return _show(find_worker(conn, worker_id), heard_since)


def _show(row: Row[Any], heard_since: float) -> Json:
    beaten = {name: value for name, value in row.heartbeat.items() if name not in UNSHOWN}
    state = "draining" if is_draining(row) else "online"
    return {
        "id": row.id,
        "state": "lost" if row.last_seen < heard_since else state,
        "drain": bool(row.drain),
        "engine": None,
        "disk": None,
        **beaten,
        "first_seen": _told(row.first_seen),
        "last_seen": _told(row.last_seen),
    }


def _told(seconds: float) -> str | None:
    moment = at(seconds)
    return moment and format_time(moment)


def last_change(conn: Connection) -> int:
    """Return the cursor of now: changes after it are news. It never goes back."""
    return conn.scalar(_LAST_CHANGE) or 0


def check_cursor(conn: Connection, cursor: int) -> int:
    """Return the cursor, or the very first one if this database cannot have told it.

    It may be from before a backup was restored: then too much news is better than none.
    """
    return cursor if cursor <= last_change(conn) else 0


def changes_after(conn: Connection, worker_id: str, after: int) -> tuple[dict[str, str], int]:
    """Return the newest state of each run that somebody else changed, and the next cursor."""
    rows = conn.execute(_CHANGES, {"worker": worker_id, "after": after}).all()
    return {row.run_id: row.state for row in rows}, rows[-1].seq if rows else after


def forget_old_changes(tx: Tx) -> None:
    """Delete changes so old that no worker still waits for them."""
    tx.conn.execute(delete(changes).where(changes.c.time < tx.now - KEEP_CHANGES_S))
