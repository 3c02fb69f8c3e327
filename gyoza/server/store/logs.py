"""Logs: text of an attempt, in chunks that may come twice."""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from gyoza.models import OpRunState
from gyoza.server.errors import Conflict, Full, NotFound
from gyoza.server.store.database import Tx
from gyoza.server.store.runs import find_row
from gyoza.server.store.schema import attempts, log_chunks
from gyoza.server.store.transitions import was_evicted
from gyoza.server.wakeups import run_key

PAGE_CHUNKS = 16

MB = 1024 * 1024
MAX_LOG_BYTES = 80 * MB
"""What an attempt may write; a worker of ours cuts it far sooner."""


@dataclass(frozen=True)
class LogPage:
    """A piece of a log.

    Attributes:
        data: UTF-8 text, from the offset asked for.
        attempt_over: Whether the attempt has ended.
    """

    data: bytes
    attempt_over: bool


def append_log(
    tx: Tx, run_id: str, offset: int, data: bytes, worker_id: str | None, attempt: int | None
) -> int:
    """Store a chunk, less what is stored already; return the offset that comes next.

    The current attempt takes its last lines after its end too, until the next attempt begins; not
    if it was lost, since its worker has to hear of that.

    Raises:
        NotFound: If there is no such run.
        Conflict: If the attempt is not the current one, lost or another worker's, or text is
            missing between what is stored and `offset`.
        Full: If the attempt has written all it may.
    """
    run = find_row(tx.conn, run_id)
    number = run.current_attempt if attempt is None else attempt
    row = tx.conn.execute(
        select(attempts).where(attempts.c.run_id == run_id, attempts.c.attempt == number)
    ).one_or_none()
    if row is None or number != run.current_attempt:
        raise Conflict(f"Run {run_id} is at attempt {run.current_attempt}, not {number}.")
    if worker_id is not None and worker_id != row.worker_id:
        raise Conflict(f"Attempt {number} of run {run_id} is not held by {worker_id}.")
    if worker_id is not None and was_evicted(run):
        raise Conflict(f"Attempt {number} of run {run_id} was taken from {worker_id}.")
    stored: int = row.log_bytes
    if offset > stored:
        raise Conflict(f"The log of run {run_id} goes on at offset {stored}, not {offset}.")
    fresh = data[stored - offset :]
    if fresh:
        end = stored + len(fresh)
        if end > MAX_LOG_BYTES:
            raise Full(f"The log of an attempt may hold {MAX_LOG_BYTES // MB} MiB, no more.")
        tx.conn.execute(
            insert(log_chunks).values(
                run_id=run_id, attempt=number, offset=stored, end=end, data=fresh
            )
        )
        tx.conn.execute(
            update(attempts)
            .where(attempts.c.run_id == run_id, attempts.c.attempt == number)
            .values(log_bytes=end)
        )
        tx.wake.add(run_key(run_id))
        return end
    return stored


def choose_attempt(conn: Connection, run_id: str, asked: int | None) -> int:
    """Return the attempt whose log to show: the one asked for, else the current or coming one.

    Raises:
        NotFound: If there is no such run or attempt.
    """
    current: int = find_row(conn, run_id).current_attempt
    if asked is not None and not 1 <= asked <= max(current, 1):
        raise NotFound(f"Run {run_id} has no attempt {asked}.")
    return asked or max(current, 1)


def read_log(conn: Connection, run_id: str, attempt: int, offset: int) -> LogPage:
    """Return some text from `offset` on, in bytes; empty where there is no more yet."""
    rows = conn.execute(
        select(log_chunks.c.offset, log_chunks.c.data)
        .where(
            log_chunks.c.run_id == run_id,
            log_chunks.c.attempt == attempt,
            log_chunks.c.end > offset,
        )
        .order_by(log_chunks.c.offset)
        .limit(PAGE_CHUNKS)
    ).all()
    data = b"".join(row.data for row in rows)
    return LogPage(
        data[max(0, offset - rows[0].offset) :] if rows else b"",
        _is_over(conn, run_id, attempt),
    )


def _is_over(conn: Connection, run_id: str, attempt: int) -> bool:
    run = find_row(conn, run_id)
    state = conn.scalar(
        select(attempts.c.state).where(attempts.c.run_id == run_id, attempts.c.attempt == attempt)
    )
    ended = state is not None and OpRunState(state).terminal
    return ended or OpRunState(run.state).terminal or run.current_attempt > attempt
