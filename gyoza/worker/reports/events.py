"""Sends one attempt's events to the server, in order, each exactly once."""

import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from gyoza.client import AsyncGyozaClient
from gyoza.models import EventType
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.errors import LeaseLost
from gyoza.worker.lacks import in_thread
from gyoza.worker.logs.events import OpEvent
from gyoza.worker.reports.delivery import Delivery
from gyoza.worker.reports.report import TERMINAL, Report
from gyoza.worker.run_record import EventCount, RunRecord
from gyoza.worker.server_contact import ServerContact

MAX_EVENTS, MAX_EVENT_BYTES = 1000, 1024 * 1024
"""INFO and ERROR events that one attempt may tell; more are counted and dropped.

The run's end comes after them, and a server that takes them one by one has each on its disk before
it answers: so many take that some seconds. Whoever has more to say writes to the log.
"""

PACE_S = 0.25
"""Seconds between two requests with what an op tells; of PROGRESS in between only the latest goes.

All that is told meanwhile goes in one.
"""

BATCH = 500
"""Events in one request, at most."""


class EventReporter:
    """The events of one attempt.

    `note` queues and returns at once; `confirm` waits for the server's answer. Events are sent in
    order with a sequence number, and again until the server takes or refuses them; those of an op
    that wait for the next request go in it together, unless the server takes no batches. What an
    earlier life of the worker has left unsent goes first.

    Args:
        client: Used for nothing but reports.
        identity: The attempt.
        record: Remembers how an attempt ended, and what was sent.
        limiter: For the threads that write the record.
        contact: What is known of the server; nothing, if not given.

    Attributes:
        delivery: Sends them.
        settled: The server knows the attempt's end.
        lost: Set when the server says that the attempt is not this worker's (any more).
    """

    def __init__(
        self,
        client: AsyncGyozaClient,
        identity: ContainerIdentity,
        record: RunRecord,
        limiter: trio.CapacityLimiter,
        contact: ServerContact | None = None,
    ) -> None:
        self.identity = identity
        self.delivery = Delivery(client, identity, contact or ServerContact())
        self._record = record
        self._limiter = limiter
        self._queue = deque(Report.from_fact(fact) for fact in record.unsent)
        self._next_seq = record.next_seq
        self._news = trio.Event()
        self._progress: Report | None = None
        self._percentage: str | int | None = None
        self._due = -math.inf
        self._counted: EventCount = record.position.events
        end = record.end
        if end in record.unsent and end and (words := self._left_out(end["seq"] - 1)):
            self._queue.insert(len(self._queue) - 1, words)
        self.settled = False
        self.lost = trio.Event()

    @property
    def counted(self) -> EventCount:
        """How many events were admitted and how many were not, for the record."""
        return self._counted

    def note(self, kind: EventType, msg: str | int) -> None:
        """Queue an event of the worker that need not outlive the process."""
        self.put(*self.admit([OpEvent(kind, msg)]))

    def admit(self, events: Sequence[OpEvent]) -> list[Report]:
        """Number events that are to be `put` as soon as they are recorded.

        Those that are too many are left out and counted; of PROGRESS only the latest stays, and
        that only if it says something new.
        """
        progress = next((e for e in reversed(events) if e.type == EventType.PROGRESS), None)
        if progress and not progress.payload:
            known, self._percentage = self._percentage, progress.msg
            progress = None if progress.msg == known else progress
        return [
            self._numbered(EventType(event.type), event.msg, event.payload)
            for event in events
            if event is progress or (event.type != EventType.PROGRESS and self._has_room_for(event))
        ]

    def put(self, *reports: Report) -> None:
        """Queue reports; of all waiting PROGRESS only the latest is kept."""
        for report in reports:
            if report.type == EventType.PROGRESS:
                if self._progress:
                    self._queue.remove(self._progress)
                self._progress = report
            self._queue.append(report)
        self._news.set()

    def tell(self, kind: EventType, msg: str) -> Report:
        """Queue an event of the worker that moves the run's state; see `confirmed`."""
        report = self._numbered(kind, msg)
        self.put(report)
        return report

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
        first_end = kind in TERMINAL and self._record.end is None
        if first_end and (words := self._left_out(self._next_seq)):
            self._next_seq += 1
            self.put(words)
        report = self._numbered(kind, msg, payload, summary)
        if kind in TERMINAL:
            await self._in_thread(partial(self._record.note_report, report.fact))
        self.put(report)
        await self.confirmed(report)

    async def confirmed(self, report: Report) -> None:
        """Wait until the server has taken a report.

        Raises:
            LeaseLost: As `confirm`.
            ApiError: As `confirm`.
        """
        await report.taken.wait()
        if report.refusal and self.lost.is_set():
            raise LeaseLost(report.refusal.detail) from report.refusal
        if report.refusal:
            raise report.refusal
        self.settled = self.settled or report.type in TERMINAL

    async def confirm_recorded_end(self) -> None:
        """Wait until the server has taken the end that an earlier life of the worker recorded.

        Raises:
            LeaseLost: As `confirm`.
            ApiError: As `confirm`.
        """
        ends = [report for report in self._queue if report.type in TERMINAL]
        for report in ends:
            await self.confirmed(report)
        self.settled = True

    async def serve(self) -> None:
        """Send what is queued, until cancelled."""
        while True:
            while self._queue:
                await self._pace()
                reports = self._next()
                await self.delivery.send(reports)
                await self._settle(reports)
            self._news = trio.Event()
            await self._news.wait()

    async def _pace(self) -> None:
        """Wait until it is time for more of what the op tells; a change of state waits for none."""
        with trio.move_on_at(self._due):
            while self._queue[-1].type.saying:
                self._news = trio.Event()
                await self._news.wait()
        if self._queue[0].type.saying:
            self._due = trio.current_time() + PACE_S

    def _next(self) -> list[Report]:
        """Take what goes in the next request."""
        reports = [self._queue.popleft()]
        if self.delivery.takes_batches and reports[0].type.saying:
            while self._queue and self._queue[0].type.saying and len(reports) < BATCH:
                reports.append(self._queue.popleft())
        if self._progress in reports:
            self._progress = None
        return reports

    async def _settle(self, reports: Sequence[Report]) -> None:
        """Record and say what became of reports that were sent.

        The events of an op are remembered, since they may be many; all others are told again.
        """
        if told := [report.seq for report in reports if report.type.saying and report.lasting]:
            await self._in_thread(partial(self._record.note_sent, seq=told[-1]))
        for report in reports:
            if report.refusal and report.refusal.status in (404, 409):
                self.lost.set()
            report.taken.set()

    def _has_room_for(self, event: OpEvent) -> bool:
        """Count an event; once one was left out, all that follow are."""
        counted = self._counted
        if not (counted.infos or counted.errors) and counted.sent < MAX_EVENTS:
            size = counted.size + len(json.dumps([event.msg, event.payload]))
            if size <= MAX_EVENT_BYTES:
                self._counted = replace(counted, sent=counted.sent + 1, size=size)
                return True
        if event.type == EventType.ERROR:
            self._counted = replace(counted, errors=counted.errors + 1)
        else:
            self._counted = replace(counted, infos=counted.infos + 1)
        return False

    def _left_out(self, seq: int) -> Report | None:
        """Return what to tell right before the end of events that were left out, if any."""
        infos, errors = self._counted.infos, self._counted.errors
        if not infos and not errors:
            return None
        sentence = f"{infos} INFO and {errors} ERROR events were dropped: too many for one run."
        return Report(seq, EventType.INFO, sentence, {"dropped": {"INFO": infos, "ERROR": errors}})

    def _numbered(
        self,
        kind: EventType,
        msg: str | int,
        payload: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
    ) -> Report:
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        return Report(seq, kind, msg, payload, summary)

    async def _in_thread(self, write: partial[None]) -> None:
        await in_thread(write, limiter=self._limiter)
