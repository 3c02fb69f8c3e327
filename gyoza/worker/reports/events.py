"""Sends one attempt's events to the server, in order, each exactly once."""

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from gyoza.client import ApiError, AsyncGyozaClient, ClientError
from gyoza.client.retry import REPORT
from gyoza.models import EventType
from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.errors import LeaseLost
from gyoza.worker.logs.events import OpEvent
from gyoza.worker.run_record import RunRecord

MAX_QUEUED = 1000
"""INFO and ERROR events of one run that may wait for the server; more are counted and dropped."""

TERMINAL = (EventType.COMPLETED, EventType.FAILED)

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """An event on its way, and what became of it.

    Attributes:
        seq: Grows from one report of the attempt to the next.
    """

    seq: int
    type: EventType
    msg: str | int
    payload: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    taken: trio.Event = field(default_factory=trio.Event)
    refusal: ApiError | None = None

    @property
    def lasting(self) -> bool:
        """Whether it must outlive the process; progress is told anew by whatever makes some."""
        return self.type != EventType.PROGRESS

    @property
    def fact(self) -> dict[str, Any]:
        """The report as the record keeps it."""
        return {
            "seq": self.seq,
            "type": self.type,
            "msg": self.msg,
            "payload": self.payload,
            "summary": self.summary,
        }

    @classmethod
    def from_fact(cls, fact: dict[str, Any]) -> "Report":
        """Read it back."""
        kind = EventType(fact["type"])
        return cls(fact["seq"], kind, fact["msg"], fact["payload"], fact["summary"])


class EventReporter:
    """The events of one attempt.

    `note` queues and returns at once; `confirm` waits for the server's answer. Events are sent one
    after the other with a sequence number, and again until the server takes or refuses them. What
    an earlier life of the worker has left unsent goes first.

    Args:
        client: Used for nothing but reports.
        identity: The attempt.
        record: Remembers how an attempt ended, and what was sent.
        limiter: For the threads that write the record.

    Attributes:
        settled: The server knows the attempt's end.
        lost: Set when the server says that the attempt is not this worker's (any more).
    """

    def __init__(
        self,
        client: AsyncGyozaClient,
        identity: ContainerIdentity,
        record: RunRecord,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._client = client
        self.identity = identity
        self._record = record
        self._limiter = limiter
        self._queue = deque(Report.from_fact(fact) for fact in record.unsent)
        self._next_seq = record.next_seq
        self._news = trio.Event()
        self._dropped = 0
        self.settled = False
        self.lost = trio.Event()

    def note(self, kind: EventType, msg: str | int) -> None:
        """Queue an event of the worker that need not outlive the process."""
        self.put(*self.admit([OpEvent(kind, msg)]))

    def admit(self, events: Iterable[OpEvent]) -> list[Report]:
        """Number events that are to be `put` as soon as they are recorded.

        Those that are too many are left out and counted.
        """
        reports: list[Report] = []
        for event in events:
            kind = EventType(event.type)
            last = reports[-1] if reports else None
            if last and kind == last.type == EventType.PROGRESS:
                last.msg, last.payload = event.msg, event.payload
            elif kind != EventType.PROGRESS and len(self._queue) + len(reports) >= MAX_QUEUED:
                self._dropped += 1
            else:
                reports.append(self._numbered(kind, event.msg, event.payload))
        return reports

    def put(self, *reports: Report) -> None:
        """Queue reports; of waiting PROGRESS in a row only the latest is kept."""
        for report in reports:
            last = self._queue[-1] if self._queue else None
            if last and report.type == last.type == EventType.PROGRESS:
                last.msg, last.payload = report.msg, report.payload
            else:
                self._queue.append(report)
        self._news.set()

    async def confirm(
        self,
        kind: EventType,
        msg: str,
        payload: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
    ) -> None:
        """Send an event after all that are queued, and wait until the server has taken it.

        The end of the attempt is recorded first: it will be sent, if not by this process.

        Raises:
            LeaseLost: If the attempt is not (or no longer) this worker's.
            ApiError: If the server refuses the event as such.
        """
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            sentence = f"{dropped} events were dropped: too many at once."
            self.put(self._numbered(EventType.INFO, sentence))
        report = self._numbered(kind, msg, payload, summary)
        if kind in TERMINAL:
            await self._in_thread(partial(self._record.note_report, report.fact))
        self.put(report)
        await self._confirmed(report)

    async def confirm_recorded_end(self) -> None:
        """Wait until the server has taken the end that an earlier life of the worker recorded.

        Raises:
            LeaseLost: As `confirm`.
            ApiError: As `confirm`.
        """
        ends = [report for report in self._queue if report.type in TERMINAL]
        for report in ends:
            await self._confirmed(report)
        self.settled = True

    async def serve(self) -> None:
        """Send what is queued, until cancelled."""
        while True:
            while self._queue:
                report = self._queue.popleft()
                report.refusal = await self._send(report)
                if report.lasting:
                    await self._in_thread(partial(self._record.note_sent, seq=report.seq))
                if report.refusal and report.refusal.status in (404, 409):
                    self.lost.set()
                report.taken.set()
            self._news = trio.Event()
            await self._news.wait()

    def _numbered(
        self,
        kind: EventType,
        msg: str | int,
        payload: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
    ) -> Report:
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        return Report(seq, kind, msg, payload, summary)

    async def _confirmed(self, report: Report) -> None:
        await report.taken.wait()
        if report.refusal and self.lost.is_set():
            raise LeaseLost(report.refusal.detail) from report.refusal
        if report.refusal:
            raise report.refusal
        self.settled = self.settled or report.type in TERMINAL

    async def _in_thread(self, write: partial[None]) -> None:
        await trio.to_thread.run_sync(write, limiter=self._limiter)

    async def _send(self, report: Report) -> ApiError | None:
        """Send until the server has taken the report, or return its refusal."""
        backoff = Backoff()
        while True:
            try:
                await self._client.add_event(
                    self.identity.run_id,
                    report.type,
                    report.msg,
                    report.payload,
                    worker_id=self.identity.worker_id,
                    attempt=self.identity.attempt,
                    seq=report.seq,
                    summary=report.summary,
                )
            except ApiError as refusal:
                away = refusal.status == 404 and not refusal.says_unknown
                if refusal.status not in REPORT.statuses and not away:
                    return refusal
                logger.warning("Run %s goes on trying: %s", self.identity.run_id, refusal)
            except ClientError as error:
                logger.warning("Run %s goes on trying: %s", self.identity.run_id, error)
            else:
                return None
            await backoff.wait()
