"""What workers (and scripts by hand) tell about a run: events, releases, changes by a person."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select, update

from gyoza.models import EventType, OpRunState
from gyoza.server.errors import BadRequest, Conflict
from gyoza.server.json_text import EMPTY, JsonText
from gyoza.server.store import transitions
from gyoza.server.store.database import Tx
from gyoza.server.store.kinds import refresh
from gyoza.server.store.op_events import Report, say, size_of
from gyoza.server.store.runs import Json, RunRow, as_json, find_row
from gyoza.server.store.schema import events, runs
from gyoza.server.store.texts import digest_of
from gyoza.server.wakeups import CLAIMS

COMPARED_BYTES = 64 * 1024
"""Bytes of a payload to which it is told from another one by its values, not its text."""

_ENDINGS = {
    EventType.COMPLETED: OpRunState.COMPLETED,
    EventType.FAILED: OpRunState.FAILED,
    EventType.CANCELLED: OpRunState.CANCELLED,
}


@dataclass(frozen=True)
class Change:
    """What is to be changed of a run by hand; None leaves it as it is.

    Attributes:
        may_report: Whether that may be what its worker reports, while a worker holds it.
    """

    state: OpRunState | None = None
    outputs: JsonText | None = None
    priority: int | None = None
    may_report: bool = True


def add_event(tx: Tx, run_id: str, report: Report) -> None:
    """Take an event and move the run with it; a repeat changes nothing.

    Raises:
        NotFound: If there is no such run.
        Conflict: If the run has ended, or is not held by this worker and attempt.
        Full: If the event is too large, or the run's events have said all they may.
    """
    run = find_row(tx.conn, run_id)
    number = run.current_attempt if report.attempt is None else report.attempt
    if report.worker_id is None:
        if report.type is not EventType.CANCELLED:
            _check_unheld(run, may_report=report.may_report)
        attempt = transitions.find_attempt(tx, run_id, number)
    else:
        attempt = find_held_attempt(tx, run, report.worker_id, number)
    if _is_repeat(tx, run, attempt, report):
        return
    check_current(run, number, report.worker_id)
    if report.seq is not None and attempt is not None:
        transitions.change_attempt(tx, run, last_seq=max(report.seq, attempt.last_seq))
    if report.type.saying:
        say(tx, run, [report])
    else:
        size_of(report)
        _move_by(tx, run, report)


def release(tx: Tx, run_id: str, worker_id: str, number: int, reason: str) -> None:
    """Give a run back to the queue; again for a released attempt changes nothing.

    Raises:
        NotFound: If there is no such run.
        Conflict: If the run has ended, or is not held by this worker and attempt.
    """
    run = find_row(tx.conn, run_id)
    attempt = find_held_attempt(tx, run, worker_id, number)
    given_back = run.state == OpRunState.PENDING or number < run.current_attempt
    if given_back and attempt.state == OpRunState.CANCELLED:
        return
    check_current(run, number, worker_id)
    transitions.requeue(tx, run, reason, f"given back by worker {worker_id}: {reason}")


def cancel(tx: Tx, run_id: str) -> None:
    """Cancel a run; again changes nothing.

    Raises:
        NotFound: If there is no such run.
        Conflict: If it has completed or failed.
    """
    run = find_row(tx.conn, run_id)
    if run.state != OpRunState.CANCELLED:
        transitions.cancel(tx, run, "cancelled on request", EMPTY, {})


def retry(tx: Tx, run_id: str) -> None:
    """Queue a failed or cancelled run once more.

    Raises:
        NotFound: If there is no such run.
        Conflict: If it is in another state.
    """
    run = find_row(tx.conn, run_id)
    if run.state not in (OpRunState.FAILED, OpRunState.CANCELLED):
        raise Conflict(
            f"Run {run_id} is {run.state}; only a FAILED or CANCELLED run can be retried."
        )
    transitions.retry(tx, run)


def change_run(tx: Tx, run_id: str, change: Change) -> None:
    """Change some fields of a run by hand.

    Raises:
        NotFound: If there is no such run.
        BadRequest: If the state machine has no such transition, or the outputs cannot be set.
        Conflict: If a worker holds the run, and its key alone may do this.
    """
    run = find_row(tx.conn, run_id)
    state, outputs = change.state, change.outputs
    if change.priority is not None:
        values: Json = {"priority": change.priority, "updated_at": tx.now}
        tx.conn.execute(update(runs).where(runs.c.id == run_id).values(values))
        if transitions.is_queued(run):
            refresh(tx, run.kind_id)
            tx.wake.add(CLAIMS)  # capacity may have been kept for another one
    if state == run.state:
        state = None
    if outputs is not None or state not in (None, OpRunState.CANCELLED, OpRunState.PENDING):
        _check_unheld(run, may_report=change.may_report)
    if state is not None:
        _move(tx, run, state, outputs or EMPTY)
    if outputs is None or state is OpRunState.COMPLETED:
        return
    if state is not None or run.state != OpRunState.RUNNING:
        raise BadRequest(
            "Outputs can be set while a run is RUNNING, or together with state COMPLETED."
        )
    transitions.set_outputs(tx, run, outputs)
    tx.conn.execute(update(runs).where(runs.c.id == run_id).values(updated_at=tx.now))


def _move(tx: Tx, run: RunRow, state: OpRunState, outputs: JsonText) -> None:
    now = OpRunState(run.state)
    if state is OpRunState.ASSIGNED or not now.can_become(state):
        raise BadRequest(f"Run {run.id} is {now} and cannot be made {state}.")
    if state is OpRunState.RUNNING:
        transitions.start(tx, run, "started by hand", EMPTY)
    elif state is OpRunState.COMPLETED:
        transitions.complete(tx, run, "completed by hand", outputs, {})
    elif state is OpRunState.FAILED:
        transitions.fail(tx, run, "failed by hand", EMPTY, {}, retry=False)
    elif state is OpRunState.CANCELLED:
        transitions.cancel(tx, run, "cancelled on request", EMPTY, {})
    elif now.held:
        transitions.requeue(tx, run, "REQUESTED", "taken from its worker on request")
    else:
        transitions.retry(tx, run)


def find_held_attempt(tx: Tx, run: RunRow, worker_id: str, number: int) -> Row[Any]:
    """Return an attempt that the worker has or had.

    Raises:
        Conflict: If it is another's.
    """
    attempt = transitions.find_attempt(tx, run.id, number)
    if attempt is None or attempt.worker_id != worker_id:
        raise Conflict(f"Attempt {number} of run {run.id} is not held by {worker_id}.")
    return attempt


def _check_unheld(run: RunRow, *, may_report: bool) -> None:
    """Do nothing if somebody may report for a run in place of its worker.

    Raises:
        Conflict: If its worker alone may.
    """
    if OpRunState(run.state).held and run.worker_id is not None and not may_report:
        raise Conflict(
            f"Worker {run.worker_id} holds run {run.id}, and it alone reports for it; "
            "cancel the run, or use an admin's key."
        )


def _is_repeat(tx: Tx, run: RunRow, attempt: Row[Any] | None, report: Report) -> bool:
    """Return whether the attempt has this event already.

    What moves the state is recognised by the state: a worker that lost count of its numbers in a
    crash must neither have its result taken for old news nor start what is no longer its own.
    """
    if report.worker_id is None and report.type == run.state == OpRunState.CANCELLED:
        return True
    if attempt is None:
        return False
    current = attempt.attempt == run.current_attempt
    if report.type is EventType.STARTED:
        return current and run.state == attempt.state == OpRunState.RUNNING
    if report.type in _ENDINGS:
        return _has_ended_so(tx, attempt, report)
    over = run.state == OpRunState.PENDING  # its worker has to hear that it lost the run
    return current and not over and report.seq is not None and report.seq <= attempt.last_seq


def _has_ended_so(tx: Tx, attempt: Row[Any], report: Report) -> bool:
    """Return whether the attempt has ended as reported; the same end told differently is not."""
    if attempt.state != _ENDINGS[report.type]:
        return False
    told: bytes | None = tx.conn.scalar(
        select(as_json(events.c.payload)).where(
            events.c.run_id == attempt.run_id,
            events.c.attempt == attempt.attempt,
            events.c.type == report.type,
        )
    )
    if report.type is EventType.CANCELLED:  # by hand it cancels a run that waits for another try
        return report.worker_id is not None and told is not None
    return told is not None and _same(tx, told, report.payload.encode())


def _same(tx: Tx, one: bytes, other: bytes) -> bool:
    """Return whether two objects are the same; small ones may be written in another order."""
    digests = digest_of(tx.conn, one), digest_of(tx.conn, other)
    if digests != (None, None):
        return digests[0] == digests[1]
    if one == other or max(len(one), len(other)) > COMPARED_BYTES:
        return one == other
    return json.loads(one) == json.loads(other)


def check_current(run: RunRow, number: int, worker_id: str | None) -> None:
    """Do nothing if the attempt may report.

    Raises:
        Conflict: If the run has ended, is at another attempt, or not held any more.
    """
    if number != run.current_attempt:
        raise Conflict(f"Run {run.id} is at attempt {run.current_attempt}, not {number}.")
    state = OpRunState(run.state)
    if state.terminal:
        raise Conflict(f"Run {run.id} is already {state}.")
    if worker_id is not None and not state.held:
        raise Conflict(f"Run {run.id} is {state}: worker {worker_id} does not hold it any more.")


def _move_by(tx: Tx, run: RunRow, report: Report) -> None:
    """Move a run by an event that is told by a worker or by hand."""
    msg, payload = report.msg, report.payload
    if report.type is EventType.STARTED:
        if run.state == OpRunState.PENDING:  # by hand: held by no worker, without a lease
            run = transitions.assign(tx, run, None, None)
        transitions.start(tx, run, msg, payload)
    elif report.type is EventType.COMPLETED:
        transitions.complete(tx, run, msg, payload, report.summary)
    elif report.type is EventType.FAILED:
        transitions.fail(tx, run, msg, payload, report.summary)
    else:
        transitions.cancel(tx, run, msg, payload, report.summary)
