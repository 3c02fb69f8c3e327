"""Logs: text of an attempt, in chunks that may come twice, and whether more of it is to come."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from sqlalchemy import Connection, Integer, bindparam, func, insert, select, update

from gyoza.models import OpRunState
from gyoza.models.limits import KIB, LOG_BYTES, MIB
from gyoza.server.errors import Conflict, Full, NotFound
from gyoza.server.store.database import Tx
from gyoza.server.store.runs import find_row
from gyoza.server.store.schema import attempts, log_chunks, workers
from gyoza.server.store.transitions import was_evicted
from gyoza.server.wakeups import run_key

PIECE_BYTES = 256 * KIB
"""The most that is stored in one row, and read at once."""

QUIET_S = 120.0
"""Seconds without text after which no more is expected of an attempt that is over."""

_OF_ATTEMPT = attempts.c.run_id == bindparam("run"), attempts.c.attempt == bindparam("number")
_FIND = select(attempts).where(*_OF_ATTEMPT)
_NOTE = update(attempts).where(*_OF_ATTEMPT)
_STORE = insert(log_chunks)
# Of a row of an earlier version, which may be large, no more than a piece is copied.
_READ = (
    select(
        func.substr(
            log_chunks.c.data,
            func.max(bindparam("offset", type_=Integer) - log_chunks.c.offset, 0) + 1,
            PIECE_BYTES + 1,
        )
    )
    .where(
        log_chunks.c.run_id == bindparam("run"),
        log_chunks.c.attempt == bindparam("number"),
        log_chunks.c.end > bindparam("offset"),
    )
    .order_by(log_chunks.c.offset)
)
_WORKER = select(workers.c.last_seen, workers.c.heartbeat).where(
    workers.c.id == bindparam("worker")
)


class LogState(Enum):
    """Whether more text of a log may come."""

    UNDER_WAY = auto()  # the attempt is
    AWAITED = auto()  # the attempt is over, and its worker has not said that this is all
    COMPLETE = auto()
    INCOMPLETE = auto()  # what is missing is not expected any more


@dataclass(frozen=True)
class LogPage:
    """A piece of a log.

    Attributes:
        data: UTF-8 text from the offset asked for, which ends with a whole character.
        end: The offset after it.
        state: Whether more may come; for certain only where there is no text.
    """

    data: bytes
    end: int
    state: LogState


@dataclass(frozen=True)
class Hearing:
    """What the server can have heard; all moments in seconds since 1970.

    Attributes:
        now: The moment of the question.
        able_since: Since when whoever had something to say was heard.
        lost_before: A worker whose last heartbeat came before this moment is lost.
    """

    now: float
    able_since: float
    lost_before: float


def append_log(
    tx: Tx,
    run_id: str,
    offset: int,
    data: bytes,
    worker_id: str | None,
    attempt: int | None,
    *,
    final: bool = False,
) -> int:
    """Store a chunk, less what is stored already; return the offset that comes next.

    The current attempt takes its last lines after its end too, until the next attempt begins; not
    if it was lost, since its worker has to hear of that.

    Args:
        tx: The transaction.
        run_id: The run.
        offset: Bytes of the log before the chunk.
        data: UTF-8 text.
        worker_id: Who appends; None for anybody who has run it by hand.
        attempt: Whose log it is; None for the current one.
        final: The log is whole with this chunk.

    Raises:
        NotFound: If there is no such run.
        Conflict: If the attempt is not the current one, lost or another worker's, or text is
            missing between what is stored and `offset`.
        Full: If the attempt has written all it may.
    """
    run = find_row(tx.conn, run_id)
    number: int = run.current_attempt if attempt is None else attempt
    row = tx.conn.execute(_FIND, {"run": run_id, "number": number}).one_or_none()
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
    end = stored + len(fresh)
    changed: dict[str, object] = {}
    if fresh:
        if end > LOG_BYTES:
            raise Full(f"The log of an attempt may hold {LOG_BYTES // MIB} MiB, no more.")
        rows = [
            {"offset": stored + at, "end": stored + at + len(piece), "data": piece}
            for at, piece in pieces(fresh)
        ]
        tx.conn.execute(_STORE, [{"run_id": run_id, "attempt": number, **row} for row in rows])
        changed = {"log_bytes": end, "logged_at": tx.now}
    if final and offset + len(data) == end:
        changed["log_complete"] = 1
    if changed:
        tx.conn.execute(_NOTE, {"run": run_id, "number": number, **changed})
        tx.wake.add(run_key(run_id))
    return end


def pieces(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield text in pieces that end between two characters, each with its offset."""
    at = 0
    while at < len(text):
        piece = _first_piece(text[at : at + PIECE_BYTES + 1])
        yield at, piece
        at += len(piece)


def _first_piece(text: bytes) -> bytes:
    """Return as much of UTF-8 text as may be in one piece, without half a character at its end."""
    if len(text) <= PIECE_BYTES:
        return text
    cut = PIECE_BYTES
    while cut > PIECE_BYTES - 3 and text[cut] & 0xC0 == 0x80:
        cut -= 1
    return text[:cut]


def choose_attempt(conn: Connection, run_id: str, asked: int | None) -> int:
    """Return the attempt whose log to show: the one asked for, else the current or coming one.

    Raises:
        NotFound: If there is no such run or attempt.
    """
    current: int = find_row(conn, run_id).current_attempt
    if asked is not None and not 1 <= asked <= max(current, 1):
        raise NotFound(f"Run {run_id} has no attempt {asked}.")
    return asked or max(current, 1)


def read_log(conn: Connection, run_id: str, attempt: int, offset: int, hearing: Hearing) -> LogPage:
    """Return some text from `offset` on, in bytes; none where there is no more yet.

    Raises:
        NotFound: If there is no such run any more.
    """
    gathered = bytearray()
    rows = conn.execute(_READ, {"run": run_id, "number": attempt, "offset": offset})
    for (piece,) in rows:  # read one by one, so that no more is in memory than is needed
        gathered += piece
        if len(gathered) > PIECE_BYTES:
            break
    rows.close()
    if data := _first_piece(bytes(gathered[: PIECE_BYTES + 1])):
        return LogPage(data, offset + len(data), LogState.UNDER_WAY)
    return LogPage(b"", offset, _state(conn, run_id, attempt, hearing))


def _state(conn: Connection, run_id: str, attempt: int, hearing: Hearing) -> LogState:
    run = find_row(conn, run_id)
    row = conn.execute(_FIND, {"run": run_id, "number": attempt}).one_or_none()
    over = run.current_attempt > attempt or OpRunState(run.state).terminal
    if not over and (row is None or not OpRunState(row.state).terminal):
        return LogState.UNDER_WAY
    if row is None or row.log_complete or row.worker_id is None:
        return LogState.COMPLETE
    if run.current_attempt > attempt or was_evicted(run):  # no more of it would be taken
        return LogState.COMPLETE
    worker = conn.execute(_WORKER, {"worker": row.worker_id}).one_or_none()
    if worker is not None and not worker.heartbeat.get("marks_log_end"):
        return LogState.COMPLETE
    quiet_since = max(row.finished_at or 0.0, row.logged_at or 0.0, hearing.able_since)
    lost = worker is None or worker.last_seen < hearing.lost_before
    if lost or hearing.now - quiet_since > QUIET_S:
        return LogState.INCOMPLETE
    return LogState.AWAITED
