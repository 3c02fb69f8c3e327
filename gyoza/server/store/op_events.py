"""What an op tells: INFO, ERROR and PROGRESS, within what the events of a run may say."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gyoza.models import EventType
from gyoza.models.limits import EVENTS, EVENTS_BYTES, MIB, PAYLOAD_BYTES, PROGRESS_EVENTS
from gyoza.server.errors import Full
from gyoza.server.json_text import EMPTY, JsonText, write_text
from gyoza.server.store import transitions
from gyoza.server.store.database import Tx
from gyoza.server.store.runs import Json, RunRow


@dataclass(frozen=True)
class Report:
    """One event as it comes in.

    Attributes:
        payload: An object.
        worker_id: Who reports; None for a script by hand, which may report on any run.
        attempt: The attempt it is about; None for the current one.
        seq: Counts up within the attempt, gaps allowed; a repeat is recognised by it.
        summary: Known fields of an `ExecutionSummary`, with an event that ends the attempt.
        may_report: Whether a script by hand may report on a run that a worker holds.
    """

    type: EventType
    msg: str | int
    payload: JsonText = EMPTY
    worker_id: str | None = None
    attempt: int | None = None
    seq: int | None = None
    summary: Json = field(default_factory=dict[str, Any])
    may_report: bool = True


def say(tx: Tx, run: RunRow, reports: Sequence[Report]) -> RunRow:
    """Add INFO, ERROR and PROGRESS to a run and return it.

    PROGRESS that changes nothing is no event, and takes no room from the others: once there are
    many of it, the percentage changes without one.

    Raises:
        Full: If one of them is too large, or the run's events would say more than they may.
    """
    said: Json = {name: getattr(run, name) for name in ("progress", "progress_events")}
    others, size = run.event_count - run.progress_events, run.event_bytes
    told: list[Json] = []
    for report in reports:
        more = size_of(report)
        if report.type is EventType.PROGRESS:
            same = report.msg == said["progress"] and report.payload == EMPTY
            said["progress"] = report.msg
            full = said["progress_events"] >= PROGRESS_EVENTS or size + more > EVENTS_BYTES // 2
            if same or full:
                continue
            said["progress_events"] += 1
        else:
            others += 1
            if others > EVENTS or size + more > EVENTS_BYTES:
                raise Full(
                    f"The events of run {run.id} may be {EVENTS} and say "
                    f"{EVENTS_BYTES // MIB} MiB, no more; write to the log."
                )
        size += more
        told.append({"type": report.type, "msg": report.msg, "payload": report.payload})
    if said["progress"] != run.progress:
        transitions.change_attempt(tx, run, progress=said["progress"])
    return transitions.record_all(tx, run, told, event_bytes=size, **said)


def size_of(report: Report) -> int:
    """Return how many bytes an event says, roughly.

    Raises:
        Full: If those are too many for one event.
    """
    size = len(write_text(report.msg)) + len(report.payload)
    if size > PAYLOAD_BYTES and report.type is not EventType.COMPLETED:
        raise Full(f"An event may say {PAYLOAD_BYTES // MIB} MiB; write more to the log.")
    return size
