"""Events of an op that a worker tells many at a time: all of them are taken, or none."""

from collections.abc import Sequence

from gyoza.models.limits import BATCH_BYTES, MIB
from gyoza.server.errors import Full
from gyoza.server.store import transitions
from gyoza.server.store.database import Tx
from gyoza.server.store.op_events import Report, say, size_of
from gyoza.server.store.reports import (
    check_current,
    find_held_attempt,
)
from gyoza.server.store.runs import RunRow, find_row


def add_events(
    tx: Tx, run_id: str, worker_id: str, number: int, reports: Sequence[Report]
) -> RunRow:
    """Take INFO, ERROR and PROGRESS of an attempt in their order, less what it has already.

    Returns:
        The run as it is now.

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
    if sum(map(size_of, fresh)) > BATCH_BYTES:
        raise Full(f"Events told together may be {BATCH_BYTES // MIB} MiB; tell fewer at a time.")
    transitions.change_attempt(tx, run, last_seq=max(report.seq or 0 for report in fresh))
    return say(tx, run, fresh)
