"""Claims: which runs a worker gets; and leases: which runs are taken from it again."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from gyoza.models import Constraints, OpRunState, RetryPolicy
from gyoza.models.limits import CLAIM_BYTES
from gyoza.server.keyring import Key
from gyoza.server.scheduler import Needs
from gyoza.server.store import transitions
from gyoza.server.store.database import Tx
from gyoza.server.store.kinds import read_offer, refresh
from gyoza.server.store.pages import within
from gyoza.server.store.queue import choose_runs, is_empty
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

KEEP_AFTER_S = 1.0
"""Seconds that a run waits before capacity is kept for it."""

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


@dataclass(frozen=True)
class Wish:
    """What a worker claims.

    Attributes:
        worker_id: Who claims.
        max_runs: How many runs it takes, at most.
        holding: The runs it has; None for those its last heartbeat listed.
        asked_at: When the claim came, in seconds since 1970: a later heartbeat knows better what
            the worker has let go of.
        key: Bounds what the worker may have; None bounds nothing.
    """

    worker_id: str
    max_runs: int
    holding: Collection[str] | None = None
    asked_at: float = math.inf
    key: Key | None = None

    def may_have(self, tag: str) -> bool:
        """Return whether the worker may have a tag."""
        return self.key is None or self.key.allows_tag(tag)


def claim(tx: Tx, wish: Wish, lease_s: float) -> Claim:
    """Assign runs to a worker, after those assigned before whose answer it never got.

    Args:
        tx: The transaction.
        wish: What it claims.
        lease_s: How long the leases last, in seconds.

    Raises:
        NotFound: If no heartbeat of this worker ever came.
    """
    worker = find_worker(tx.conn, wish.worker_id)
    if not is_able(worker):
        return Claim([], draining=False)
    listed = [op["id"] for op in worker.heartbeat["running_ops"]]
    had = set(listed if wish.holding is None else wish.holding)
    held = _held_by(tx, wish.worker_id)
    lease_until = tx.now + lease_s
    unheard = [run for run in held if run.state == OpRunState.ASSIGNED and run.id not in had]
    unheard = [run for run in unheard if all(map(wish.may_have, run.tags))][: wish.max_runs]
    claimed = _within_answer(unheard)
    if claimed:
        again = runs.c.id.in_([run.id for run in claimed])
        tx.conn.execute(update(runs).where(again).values(lease_until=lease_until))
    draining = is_draining(worker)
    if not draining and len(claimed) == len(unheard):
        held_now = listed if worker.last_seen > wish.asked_at else had
        fresh = _choose(tx, wish, worker, held, _withheld(tx, wish.worker_id, held_now), lease_s)
        fitting = _within_answer([*claimed, *fresh[: wish.max_runs - len(claimed)]])
        for row in fitting[len(claimed) :]:
            claimed.append(transitions.assign(tx, row, wish.worker_id, lease_until))
            if row.updated_at < tx.now - KEEP_AFTER_S:
                tx.wake.add(CLAIMS)  # capacity may have been kept for it, there or elsewhere
    return Claim(claimed, draining, nothing_left=is_empty(tx.conn))


def _choose(
    tx: Tx,
    wish: Wish,
    worker: Row[Any],
    held: list[Row[Any]],
    withheld: list[str],
    lease_s: float,
) -> list[RunRow]:
    """Return runs of the queue for a worker, best first."""
    room = wish.max_runs
    if wish.key and wish.key.max_runs is not None:
        room = min(room, wish.key.max_runs - _held_with(tx, wish.key))
    if room <= 0:
        return []
    idle = read_offer(worker.offer).limited_to(wish.may_have)
    free = idle.less([Constraints.from_dict(run.constraints) for run in held])

    def is_kept(seq: int, needs: Needs) -> bool:
        since: float = tx.conn.scalar(select(runs.c.updated_at).where(runs.c.seq == seq)) or tx.now
        if since > tx.now - KEEP_AFTER_S:
            return False
        return nearest_to_room(tx, needs, tx.now - lease_s) in (wish.worker_id, None)

    return choose_runs(tx.conn, idle, free, room, withheld, is_kept)


def _held_with(tx: Tx, key: Key) -> int:
    """Return how many runs the workers of a key have."""
    held = select(runs.c.worker_id).where(runs.c.lease_until.is_not(None))
    return sum(map(key.is_for, tx.conn.scalars(held)))


def nearest_to_room(tx: Tx, needs: Needs, heard_since: float) -> str | None:
    """Return the worker that can have room first for a run that does not fit somewhere.

    That is the one that lacks the least of it, among those that could have it when they are idle.
    """
    held: defaultdict[str, list[Constraints]] = defaultdict(list)
    leased = select(runs.c.worker_id, runs.c.constraints).where(runs.c.lease_until.is_not(None))
    for run in tx.conn.execute(leased.order_by(runs.c.assigned_at, runs.c.seq)):
        held[run.worker_id].append(Constraints.from_dict(run.constraints))
    here = select(workers).where(workers.c.last_seen >= heard_since, workers.c.offer != "")
    shortages: list[tuple[float, str]] = []
    for worker in tx.conn.execute(here):
        idle, has = read_offer(worker.offer), held[worker.id]
        if idle.fits(needs) and is_able(worker) and not is_draining(worker):
            slots = worker.heartbeat["max_concurrency"]
            without_slot = slots is not None and len(has) >= slots
            shortages.append((without_slot + idle.less(has).shortage(needs.constraints), worker.id))
    return min(shortages)[1] if shortages else None


def _within_answer(rows: Iterable[RunRow]) -> list[RunRow]:
    return list(within(rows, lambda row: row.spec_bytes + row.inputs_bytes, CLAIM_BYTES))


def load_claimed(conn: Connection, claimed: Claim) -> list[StoredRun]:
    """Return the runs of a claim; of their events only the one that assigned them."""
    return [load_run(conn, row, row.event_count - 1) for row in claimed.runs]


def _held_by(tx: Tx, worker_id: str) -> list[Row[Any]]:
    return list(tx.conn.execute(_HELD, {"worker": worker_id}).all())


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


@dataclass(frozen=True)
class Swept:
    """What a sweep has done.

    Attributes:
        evicted: Ids of the runs that were taken from their workers, and of these.
        due: When the next lease or back-off ends, in seconds since 1970; None if there is none.
    """

    evicted: list[tuple[str, str]]
    due: float | None


def sweep(tx: Tx) -> Swept:
    """Evict what has lost its lease, free what has waited out its back-off."""
    expired = select(runs).where(runs.c.lease_until <= tx.now)
    evicted = tx.conn.execute(expired.order_by(runs.c.lease_until)).all()
    for run in evicted:
        transitions.evict(tx, run)
    freed = update(runs).where(runs.c.not_before <= tx.now).values(not_before=None)
    for kind_id in set(tx.conn.scalars(freed.returning(runs.c.kind_id)).all()):
        refresh(tx, kind_id)
        tx.wake.add(CLAIMS)
    forget_old_changes(tx)
    due = [
        tx.conn.scalar(select(func.min(column)).where(column.is_not(None)))
        for column in (runs.c.lease_until, runs.c.not_before)
    ]
    first = min((moment for moment in due if moment is not None), default=None)
    return Swept([(run.id, run.worker_id) for run in evicted], first)
