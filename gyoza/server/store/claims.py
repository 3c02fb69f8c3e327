"""Claims: which runs a worker gets; and leases: which runs are taken from it again."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from gyoza.models import Constraints, OpRunState, RetryPolicy
from gyoza.models.limits import CLAIM_BYTES
from gyoza.server.scheduler import Capacity, choose_runs, free_capacity
from gyoza.server.store import transitions
from gyoza.server.store.database import Tx
from gyoza.server.store.pages import within
from gyoza.server.store.queue import is_empty, read_queue
from gyoza.server.store.runs import RunRow, StoredRun, load_run
from gyoza.server.store.schema import runs, workers
from gyoza.server.store.workers import (
    HELD,
    find_worker,
    forget_old_changes,
    is_able,
    is_draining,
)
from gyoza.server.wakeups import CLAIMS

_HELD = (
    select(runs)
    .where(runs.c.worker_id == bindparam("worker"), runs.c.state.in_(HELD))
    .order_by(runs.c.assigned_at, runs.c.seq)
)


@dataclass(frozen=True)
class Claim:
    """What a claim gave.

    Attributes:
        runs: The rows of the runs, each with its `current_attempt` as claimed.
        draining: Whether waiting for more is pointless.
        nothing_left: Whether the queue is empty now, for all workers.
    """

    runs: list[RunRow]
    draining: bool
    nothing_left: bool = False


def claim(
    tx: Tx,
    worker_id: str,
    max_runs: int,
    holding: Collection[str] | None,
    lease_s: float,
    asked_at: float = math.inf,
) -> Claim:
    """Assign runs to a worker, after those assigned before whose answer it never got.

    Args:
        tx: The transaction.
        worker_id: Who claims.
        max_runs: How many runs it takes, at most.
        holding: The runs it has; None for those its last heartbeat listed.
        lease_s: How long the leases last, in seconds.
        asked_at: When the claim came, in seconds since 1970: a later heartbeat knows better what
            the worker has let go of.

    Raises:
        NotFound: If no heartbeat of this worker ever came.
    """
    worker = find_worker(tx.conn, worker_id)
    if not is_able(worker):
        return Claim([], draining=False)
    listed = [op["id"] for op in worker.heartbeat["running_ops"]]
    if holding is None:
        holding = listed
    held = _held_by(tx, worker_id)
    lease_until = tx.now + lease_s
    had = set(holding)
    unheard = [r for r in held if r.state == OpRunState.ASSIGNED and r.id not in had][:max_runs]
    claimed = _within_answer(unheard)
    if claimed:
        again = runs.c.id.in_([run.id for run in claimed])
        tx.conn.execute(update(runs).where(again).values(lease_until=lease_until))
    draining = is_draining(worker)
    if not draining and len(claimed) == len(unheard):
        held_now = listed if worker.last_seen > asked_at else holding
        capacity = _capacity(worker, held)
        queue = read_queue(tx.conn, capacity, _withheld(tx, worker_id, held_now))
        chosen = [run.row for run in choose_runs(queue, capacity, max_runs - len(claimed))]
        fitting = _within_answer([*claimed, *chosen])[len(claimed) :]
        claimed += [transitions.assign(tx, row, worker_id, lease_until) for row in fitting]
    return Claim(claimed, draining, nothing_left=is_empty(tx.conn))


def _within_answer(rows: Iterable[RunRow]) -> list[RunRow]:
    return list(within(rows, lambda row: row.spec_bytes + row.inputs_bytes, CLAIM_BYTES))


def load_claimed(conn: Connection, claimed: Claim) -> list[StoredRun]:
    """Return the runs of a claim; of their events only the one that assigned them."""
    return [load_run(conn, row, row.event_count - 1) for row in claimed.runs]


def _held_by(tx: Tx, worker_id: str) -> list[Row[Any]]:
    return list(tx.conn.execute(_HELD, {"worker": worker_id}).all())


def _capacity(worker: Row[Any], held: list[Row[Any]]) -> Capacity:
    needs = [Constraints.from_dict(run.constraints) for run in held]
    return free_capacity(worker.heartbeat["resources"], worker.heartbeat["tags"], needs)


def _withheld(tx: Tx, worker_id: str, holding: Collection[str]) -> list[str]:
    """Return which runs of the queue this worker must not get yet.

    A worker that came back does not get a run it was evicted from before it has let go of it: its
    heartbeats name runs, not attempts, so it would not hear that the one it executes is over.
    """
    if not holding:
        return []
    had = select(runs).where(
        runs.c.worker_id == worker_id, runs.c.state == OpRunState.PENDING, runs.c.id.in_(holding)
    )
    return [row.id for row in tx.conn.execute(had) if transitions.was_evicted(row)]


def restart_leases(tx: Tx, lease_s: float, leap_s: float = 0.0) -> None:
    """Let every lease begin anew: nobody could renew one, or the clock does not tell.

    Args:
        tx: The transaction.
        lease_s: How long leases last, in seconds.
        leap_s: Seconds that the clock has leapt; back-offs end as much later, or earlier.
    """
    leased = update(runs).where(runs.c.lease_until.is_not(None))
    tx.conn.execute(leased.values(lease_until=tx.now + lease_s))
    # What was set by a clock that went ahead of this one would seem to be of now for too long.
    known = update(workers).where(workers.c.last_seen > tx.now)
    tx.conn.execute(known.values(last_seen=tx.now))
    for run in tx.conn.execute(select(runs).where(runs.c.not_before.is_not(None))).all():
        delay_s = RetryPolicy(run.max_attempts, run.backoff_s).delay_s(run.failures)
        moment = min(run.not_before + leap_s, tx.now + delay_s)
        if moment != run.not_before:
            tx.conn.execute(update(runs).where(runs.c.id == run.id).values(not_before=moment))


def sweep(tx: Tx) -> float | None:
    """Evict what has lost its lease, free what has waited out its back-off.

    Returns:
        When the next lease or back-off ends, in seconds since 1970; None if there is none.
    """
    expired = select(runs).where(runs.c.lease_until <= tx.now)
    for run in tx.conn.execute(expired.order_by(runs.c.lease_until)).all():
        transitions.evict(tx, run)
    freed = update(runs).where(runs.c.not_before <= tx.now).values(not_before=None)
    if tx.conn.execute(freed).rowcount:
        tx.wake.add(CLAIMS)
    forget_old_changes(tx)
    due = [
        tx.conn.scalar(select(func.min(column)).where(column.is_not(None)))
        for column in (runs.c.lease_until, runs.c.not_before)
    ]
    return min((moment for moment in due if moment is not None), default=None)
