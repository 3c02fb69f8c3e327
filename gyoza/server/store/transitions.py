"""Every change of a run's state: each is one event, told to whoever watches."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update

from gyoza.models import EventType, FailureReason, OpRunState, ReleaseReason, RetryPolicy
from gyoza.server.errors import Conflict
from gyoza.server.json_text import EMPTY, JsonText
from gyoza.server.store.database import Tx
from gyoza.server.store.kinds import refresh
from gyoza.server.store.runs import Json, RunRow
from gyoza.server.store.schema import attempts, changes, events, feed, run_data, runs, workers
from gyoza.server.store.texts import give_to_run
from gyoza.server.wakeups import CLAIMS, DUE, end_key, feed_key, room_key, run_key, worker_key

MAX_LOSSES = 5

LOSSES: frozenset[str] = frozenset(
    {
        FailureReason.WORKER_LOST,
        ReleaseReason.WORKER_RESTARTED,
        ReleaseReason.ENGINE_RESTARTED,
        ReleaseReason.CONTAINER_GONE,
    }
)
"""Why a run went back to the queue although nobody wanted that: it may itself be the cause."""

_APPEND, _BEGIN, _PUBLISH, _TELL = insert(events), insert(attempts), insert(feed), insert(changes)
_CHANGE = update(runs).where(runs.c.id == bindparam("run")).returning(runs)
_OF_ATTEMPT = attempts.c.run_id == bindparam("run"), attempts.c.attempt == bindparam("number")
_ATTEMPT = select(attempts).where(*_OF_ATTEMPT)
_CHANGE_ATTEMPT = update(attempts).where(*_OF_ATTEMPT)
_MARKS_LOG_END = workers.c.heartbeat["marks_log_end"].as_boolean()
_AT_END = (
    select(attempts.c.started_at, _MARKS_LOG_END.label("marks_log_end"))
    .outerjoin(workers, workers.c.id == attempts.c.worker_id)
    .where(*_OF_ATTEMPT)
)
_S = OpRunState
_UNHELD: Json = {"lease_until": None, "assigned_at": None}


def record(
    tx: Tx,
    run: RunRow,
    event_type: EventType,
    msg: str | int,
    payload: Json | JsonText = EMPTY,
    **columns: Any,
) -> RunRow:
    """Append an event, change columns of the run with it, and return the new row."""
    event: Json = {"type": event_type, "msg": msg, "payload": payload}
    return record_all(tx, run, [event], **columns)


def record_all(tx: Tx, run: RunRow, told: Sequence[Json], **columns: Any) -> RunRow:
    """Do the same with events in a row, each of which has its type, msg and payload."""
    state = _S(columns.get("state", run.state))
    attempt = columns.get("current_attempt", run.current_attempt)
    shared: Json = {"run_id": run.id, "attempt": attempt, "time": tx.now, "state": state}
    shared["created_by"] = tx.author
    ids = range(run.event_count, run.event_count + len(told))
    if told:
        rows = [shared | event | {"id": id} for id, event in zip(ids, told, strict=True)]
        tx.conn.execute(_APPEND, rows)
        _publish(tx, run, ids)
    tx.wake.add(run_key(run.id))
    if state != run.state:
        _tell_holder(tx, run, state)
    if state.terminal:
        tx.wake.add(end_key(run.id))
    changed: Json = {"event_count": ids.stop, "updated_at": tx.now, **columns}
    row = tx.conn.execute(_CHANGE, {"run": run.id, **changed}).one()
    if is_queued(row) != is_queued(run):
        refresh(tx, run.kind_id)
    return row


def is_queued(run: RunRow) -> bool:
    """Return whether a run may be claimed."""
    return run.state == _S.PENDING and run.not_before is None


def assign(tx: Tx, run: RunRow, worker_id: str | None, lease_until: float | None) -> RunRow:
    """Begin the next attempt; `worker_id` None is a run by hand, without a lease."""
    attempt = run.current_attempt + 1
    begun: Json = {"run_id": run.id, "attempt": attempt, "worker_id": worker_id}
    tx.conn.execute(_BEGIN, begun | {"state": _S.ASSIGNED, "summary": {}})
    return record(
        tx,
        run,
        EventType.ASSIGNED,
        f"assigned to worker {worker_id}" if worker_id else "taken by hand",
        state=_S.ASSIGNED,
        current_attempt=attempt,
        worker_id=worker_id,
        progress=0,
        summary={},
        assigned_at=tx.now,
        lease_until=lease_until,
        not_before=None,
    )


def start(tx: Tx, run: RunRow, msg: str | int, payload: JsonText) -> RunRow:
    """Go from ASSIGNED to RUNNING."""
    _allow(run, _S.RUNNING)
    change_attempt(tx, run, state=_S.RUNNING, started_at=tx.now)
    return record(tx, run, EventType.STARTED, msg, payload, state=_S.RUNNING)


def complete(tx: Tx, run: RunRow, msg: str | int, outputs: JsonText, summary: Json) -> RunRow:
    """Go from RUNNING to COMPLETED, with the outputs."""
    _allow(run, _S.COMPLETED)
    set_outputs(tx, run, outputs)
    ended = _end_attempt(tx, run, _S.COMPLETED, {"exit_code": 0, **summary}, progress=100)
    return record(tx, run, EventType.COMPLETED, msg, outputs, progress=100, **ended)


def fail(
    tx: Tx, run: RunRow, msg: str | int, payload: JsonText, summary: Json, *, retry: bool = True
) -> RunRow:
    """Go to FAILED, and on to PENDING if the retry policy has attempts left."""
    _allow(run, _S.FAILED)
    failures: int = run.failures + 1
    ended = _end_attempt(tx, run, _S.FAILED, _failure(msg, payload) | summary)
    run = record(tx, run, EventType.FAILED, msg, payload, failures=failures, **ended)
    if not retry or failures >= run.max_attempts:
        return run
    delay = RetryPolicy(run.max_attempts, run.backoff_s).delay_s(failures)
    tx.wake.add(DUE if delay else CLAIMS)
    return record(
        tx,
        run,
        EventType.RETRIED,
        f"attempt {run.current_attempt} failed; trying again in {delay:g} s",
        {"reason": "RETRY_POLICY", "delay_s": delay},
        state=_S.PENDING,
        progress=0,
        not_before=tx.now + delay if delay else None,
    )


def cancel(tx: Tx, run: RunRow, msg: str | int, payload: JsonText, summary: Json) -> RunRow:
    """Go to CANCELLED from wherever the run waits or runs."""
    _allow(run, _S.CANCELLED)
    columns: Json = {"state": _S.CANCELLED, "not_before": None}
    if is_queued(run):
        tx.wake.add(CLAIMS)  # capacity may have been kept for it
    if _S(run.state).held:
        columns |= _end_attempt(tx, run, _S.CANCELLED, summary)
    return record(tx, run, EventType.CANCELLED, msg, payload, **columns)


def requeue(tx: Tx, run: RunRow, reason: str, msg: str) -> RunRow:
    """Take the run from its worker: back to PENDING, without using up the retry policy.

    The fifth of the `LOSSES` fails the run.
    """
    _allow(run, _S.PENDING)
    losses: int = run.losses + (reason in LOSSES)
    if reason in LOSSES and losses >= MAX_LOSSES:
        return _fail_for_losses(tx, run, losses)
    gone = reason == FailureReason.WORKER_LOST
    summary: Json = {"error_message": msg} | ({"reason": reason} if gone else {})
    ended = _end_attempt(tx, run, _S.FAILED if gone else _S.CANCELLED, summary)
    columns = ended | {"state": _S.PENDING, "progress": 0, "losses": losses}
    tx.wake.add(CLAIMS)
    return record(tx, run, EventType.RETRIED, msg, {"reason": reason}, **columns)


def _fail_for_losses(tx: Tx, run: RunRow, losses: int) -> RunRow:
    msg = (
        f"{losses} times the worker or container engine that had this run was lost; "
        "it may be what kills them"
    )
    payload: Json = {"reason": FailureReason.WORKER_LOST.value, "error_message": msg}
    ended = _end_attempt(tx, run, _S.FAILED, payload)
    return record(tx, run, EventType.FAILED, msg, payload, losses=losses, **ended)


def evict(tx: Tx, run: RunRow) -> RunRow:
    """Take the run from a worker that is gone."""
    msg = f"worker {run.worker_id} was not heard of for too long"
    return requeue(tx, run, FailureReason.WORKER_LOST, msg)


def was_evicted(run: RunRow) -> bool:
    """Return whether a run waits since it was taken from a worker that had not been heard of."""
    return run.state == _S.PENDING and run.summary.get("reason") == FailureReason.WORKER_LOST


def retry(tx: Tx, run: RunRow) -> RunRow:
    """Go from FAILED or CANCELLED to PENDING because somebody asks for it; counts start anew."""
    _allow(run, _S.PENDING)
    set_outputs(tx, run, EMPTY)
    tx.wake.add(CLAIMS)
    return record(
        tx,
        run,
        EventType.RETRIED,
        "retried on request",
        {"reason": "REQUESTED"},
        state=_S.PENDING,
        progress=0,
        failures=0,
        losses=0,
        not_before=None,
    )


def set_outputs(tx: Tx, run: RunRow, outputs: JsonText) -> None:
    """Replace the outputs of a run."""
    give_to_run(tx, outputs, run.id)
    tx.conn.execute(update(run_data).where(run_data.c.run_id == run.id).values(outputs=outputs))


def _allow(run: RunRow, state: OpRunState) -> None:
    if not _S(run.state).can_become(state):
        raise Conflict(f"Run {run.id} is {run.state} and cannot become {state}.")


def _publish(tx: Tx, run: RunRow, ids: Iterable[int]) -> None:
    if run.topic:
        item: Json = {"topic": run.topic, "run_id": run.id}
        tx.conn.execute(_PUBLISH, [item | {"event_id": id} for id in ids])
        tx.wake.add(feed_key(run.topic))


def _tell_holder(tx: Tx, run: RunRow, state: OpRunState) -> None:
    """Put news about a held run where its worker hears of it, unless it is the worker's own."""
    if run.worker_id is None or not _S(run.state).held or tx.actor == run.worker_id:
        return
    news: Json = {"worker_id": run.worker_id, "run_id": run.id, "state": state, "time": tx.now}
    tx.conn.execute(_TELL, news)
    tx.wake.add(worker_key(run.worker_id))


def find_attempt(tx: Tx, run_id: str, number: int) -> Row[Any] | None:
    """Return an attempt, if there is such a one."""
    return tx.conn.execute(_ATTEMPT, {"run": run_id, "number": number}).one_or_none()


def change_attempt(tx: Tx, run: RunRow, **columns: Any) -> None:
    """Change columns of the current attempt."""
    tx.conn.execute(_CHANGE_ATTEMPT, {"run": run.id, "number": run.current_attempt, **columns})


def _end_attempt(tx: Tx, run: RunRow, state: OpRunState, summary: Json, **columns: Any) -> Json:
    """End the current attempt and return the columns of the run that change with it."""
    current: Json = {"run": run.id, "number": run.current_attempt}
    started, marks_log_end = tx.conn.execute(_AT_END, current).one()
    if started is None or not marks_log_end:  # nobody will say when the log is whole
        columns["log_complete"] = 1
    measured = {} if started is None else {"duration_ms": max(0, round((tx.now - started) * 1000))}
    summary = measured | summary | {"worker_id": run.worker_id}
    change_attempt(tx, run, state=state, finished_at=tx.now, summary=summary, **columns)
    if run.worker_id is not None:
        tx.wake.add(room_key(run.worker_id))
    return {"state": state, "summary": summary} | _UNHELD


def _failure(msg: str | int, text: JsonText) -> Json:
    """Read why an attempt failed out of the payload of FAILED, whatever it holds."""
    payload: Json = json.loads(text)
    reason, sentence, code = (payload.get(n) for n in ("reason", "error_message", "exit_code"))
    summary: Json = {
        "reason": reason if reason in list(FailureReason) else FailureReason.INTERNAL.value,
        "error_message": sentence if isinstance(sentence, str) and sentence else str(msg),
    }
    if isinstance(code, int) and not isinstance(code, bool):
        summary["exit_code"] = code
    return summary
