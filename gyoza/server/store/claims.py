"""Claims: which runs a worker gets; and leases: which runs are taken from it again."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Row, func, select, update

from gyoza.models import Constraints, OpRun, OpRunState
from gyoza.server.scheduler import Capacity, choose_runs, free_capacity
from gyoza.server.store import transitions
from gyoza.server.store.database import Tx
from gyoza.server.store.runs import RunRow, load_run
from gyoza.server.store.schema import runs
from gyoza.server.store.workers import (
    HELD,
    find_worker,
    forget_old_changes,
    is_able,
    is_draining,
)
from gyoza.server.wakeups import CLAIMS

MAX_SCAN = 10_000


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


@dataclass(frozen=True)
class Claim:
    """What a claim gave.

    Attributes:
        runs: The runs, each with its `current_attempt` as claimed.
        draining: Whether waiting for more is pointless.
    """

    runs: list[OpRun]
    draining: bool


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
    unheard = [r for r in held if r.state == OpRunState.ASSIGNED and r.id not in holding]
    again = [run.id for run in unheard[:max_runs]]
    tx.conn.execute(update(runs).where(runs.c.id.in_(again)).values(lease_until=lease_until))
    draining = is_draining(worker)
    new: list[Waiting] = []
    if not draining:
        waiting = _waiting(tx, worker_id, listed if worker.last_seen > asked_at else holding)
        new = choose_runs(waiting, _capacity(worker, held), max_runs - len(again))
    for run in new:
        transitions.assign(tx, run.row, worker_id, lease_until)
    ids = again + [run.row.id for run in new]
    return Claim([load_run(tx.conn, run_id) for run_id in ids], draining)


def _held_by(tx: Tx, worker_id: str) -> list[Row[Any]]:
    query = select(runs).where(runs.c.worker_id == worker_id, runs.c.state.in_(HELD))
    return list(tx.conn.execute(query.order_by(runs.c.assigned_at, runs.c.seq)).all())


def _capacity(worker: Row[Any], held: list[Row[Any]]) -> Capacity:
    needs = [Constraints.from_dict(run.constraints) for run in held]
    return free_capacity(worker.heartbeat["resources"], worker.heartbeat["tags"], needs)


def _waiting(tx: Tx, worker_id: str, holding: Collection[str]) -> Iterator[Waiting]:
    """Yield what may be claimed, best first.

    A worker that came back does not get a run it was evicted from before it has let go of it: its
    heartbeats name runs, not attempts, so it would not hear that the one it executes is over.
    """
    query = (
        select(runs)
        .where(
            runs.c.state == OpRunState.PENDING,
            func.coalesce(runs.c.not_before, 0) <= tx.now,
        )
        .order_by(runs.c.priority.desc(), runs.c.seq)
        .limit(MAX_SCAN)
        .execution_options(yield_per=100)
    )
    with tx.conn.execute(query) as rows:
        for row in rows:
            has_it = row.worker_id == worker_id and row.id in holding
            if not (has_it and transitions.was_evicted(row)):
                yield Waiting(row)


def restart_leases(tx: Tx, lease_s: float) -> None:
    """Let every lease start anew: nobody could renew one while the server was down."""
    tx.conn.execute(
        update(runs).where(runs.c.lease_until.is_not(None)).values(lease_until=tx.now + lease_s)
    )


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
