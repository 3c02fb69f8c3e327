"""Workers: what their heartbeats say, the leases these renew, and news about their runs."""

from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, select, text, update
from sqlalchemy.dialects import sqlite

from gyoza.models import OpRunState
from gyoza.models.limits import PAGE_BYTES
from gyoza.models.record import format_time
from gyoza.server.errors import Conflict, NotFound
from gyoza.server.json_text import write_text
from gyoza.server.scheduler import Capacity
from gyoza.server.store import transitions
from gyoza.server.store.database import Tx
from gyoza.server.store.kinds import unpark
from gyoza.server.store.pages import page_of
from gyoza.server.store.runs import Json, at
from gyoza.server.store.schema import changes, runs, workers
from gyoza.server.wakeups import CLAIMS, worker_key

HELD = (OpRunState.ASSIGNED, OpRunState.RUNNING)
UNSHOWN = ("worker_id", "marks_log_end", "instance", "previous_instance", "leaving")
KEEP_CHANGES_S = 24 * 3600.0

_FIND = select(workers).where(workers.c.id == bindparam("worker"))
_KNOWN = sqlite.insert(workers)
_BEAT = _KNOWN.on_conflict_do_update(
    index_elements=["id"],
    set_={name: _KNOWN.excluded[name] for name in ("heartbeat", "offer", "last_seen")},
).returning(workers)
# One parameter for all of them: a statement with one for each is made anew each time.
_LISTED = select(func.json_each(bindparam("listed")).table_valued("value").c.value)
_MINE = runs.c.id.in_(_LISTED), runs.c.worker_id == bindparam("worker")
_STATES = select(runs.c.id, runs.c.state).where(*_MINE)
_RENEW = update(runs).where(*_MINE, runs.c.state.in_(HELD))
_COUNTS = (
    select(runs.c.worker_id, func.count().label("held"))
    .where(runs.c.lease_until.is_not(None))
    .group_by(runs.c.worker_id)
)

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

    Raises:
        Conflict: If another process has this worker's id.
    """
    worker_id: str = heartbeat["worker_id"]
    before = _find(tx.conn, worker_id)
    if before is not None:
        _check_instance(before, heartbeat, tx.now - lease_s)
    offer = Capacity.of_worker(heartbeat["resources"], heartbeat["tags"])
    told: Json = {"id": worker_id, "heartbeat": heartbeat, "offer": offer.to_text()}
    if (before is None or before.offer != told["offer"]) and unpark(tx, offer):
        tx.wake.add(CLAIMS)
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


def _check_instance(before: Row[Any], heartbeat: Json, heard_since: float) -> None:
    """Do nothing unless a heartbeat comes from a second process with the same worker id.

    A process that was started anew on the same work directory names the one before it.

    Raises:
        Conflict: If it does.
    """
    last, this = (beaten.get("instance") for beaten in (before.heartbeat, heartbeat))
    if last is None or this is None or last in (this, heartbeat.get("previous_instance")):
        return
    if before.last_seen >= heard_since and not before.heartbeat.get("leaving"):
        raise Conflict(
            f"Another process is worker {before.id}; give this one another id (--worker-id), "
            "or end the other one."
        )


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


def show_workers(
    conn: Connection, heard_since: float, limit: int, after: str
) -> tuple[list[bytes], str | None]:
    """Return workers for the API, as JSON, by id.

    Args:
        conn: Where to read.
        heard_since: Those not heard of since then are lost, in seconds since 1970.
        limit: How many, at most.
        after: Id of the one before the first.

    Returns:
        The workers, and the id of the last one if there are more.
    """
    held = _held(conn)
    query = select(workers).where(workers.c.id > after).order_by(workers.c.id)
    with conn.execute(query.execution_options(yield_per=10)) as rows:
        shown = ((row.id, write_text(_show(row, heard_since, held)).encode()) for row in rows)
        page, more = page_of(shown, lambda one: len(one[1]), PAGE_BYTES, limit)
    return [text for _, text in page], page[-1][0] if more else None


def show_worker(conn: Connection, worker_id: str, heard_since: float) -> Json:
    """Return one worker for the API.

    Raises:
        NotFound: If there is no such worker.
    """
    worker = find_worker(conn, worker_id)
    return _show(worker, heard_since, _held(conn))


def _held(conn: Connection) -> dict[str, int]:
    """Return how many runs each worker has."""
    return {row.worker_id: row.held for row in conn.execute(_COUNTS)}


def _show(row: Row[Any], heard_since: float, held: dict[str, int]) -> Json:
    beaten = {name: value for name, value in row.heartbeat.items() if name not in UNSHOWN}
    return {
        "id": row.id,
        "state": state_of(row, heard_since),
        "drain": bool(row.drain),
        "engine": None,
        "disk": None,
        **beaten,
        "held": held.get(row.id, 0),
        "first_seen": _told(row.first_seen),
        "last_seen": _told(row.last_seen),
    }


def state_of(row: Row[Any], heard_since: float) -> str:
    """Return whether a worker is online, draining, offline (it said goodbye) or lost."""
    if row.heartbeat.get("leaving"):
        return "offline"
    if row.last_seen < heard_since:
        return "lost"
    return "draining" if is_draining(row) else "online"


def lost_workers(conn: Connection, heard_since: float) -> frozenset[str]:
    """Return the ids of the workers that went silent without a word."""
    left = workers.c.heartbeat["leaving"].as_boolean()
    silent = select(workers.c.id).where(workers.c.last_seen < heard_since, left.is_not(True))
    return frozenset(conn.scalars(silent))


def forget_worker(tx: Tx, worker_id: str, heard_since: float) -> None:
    """Delete a worker that has ended or is lost; its next heartbeat makes it known again.

    Raises:
        NotFound: If there is no such worker.
        Conflict: If it is there.
    """
    state = state_of(find_worker(tx.conn, worker_id), heard_since)
    if state not in ("offline", "lost"):
        raise Conflict(f"Worker {worker_id} is {state}; stop it first.")
    tx.conn.execute(delete(workers).where(workers.c.id == worker_id))
    tx.conn.execute(delete(changes).where(changes.c.worker_id == worker_id))


def forget_silent_workers(tx: Tx, silent_since: float) -> None:
    """Delete workers that were not heard of for long, and have no run."""
    has_run = select(runs.c.id).where(runs.c.worker_id == workers.c.id, runs.c.state.in_(HELD))
    tx.conn.execute(delete(workers).where(workers.c.last_seen < silent_since, ~has_run.exists()))


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
