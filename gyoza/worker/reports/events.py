"""Sends one attempt's events to the server, in order, each exactly once."""

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import trio

from gyoza.client import ApiError, AsyncGyozaClient, ClientError
from gyoza.client.retry import REPORT
from gyoza.models import EventType
from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.errors import LeaseLost

MAX_QUEUED = 1000
"""INFO and ERROR events of one run that may wait for the server; more are counted and dropped."""

TERMINAL = (EventType.COMPLETED, EventType.FAILED)

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """An event on its way, and what became of it."""

    type: EventType
    msg: str | int
    payload: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    taken: trio.Event = field(default_factory=trio.Event)
    refusal: ApiError | None = None


class EventReporter:
    """The events of one attempt.

    `note` queues and returns at once; `confirm` waits for the server's answer. Events are sent one
    after the other with a sequence number, and again until the server takes or refuses them.

    Attributes:
        settled: The attempt's end is known to the server, or is no longer ours to tell.
    """

    def __init__(self, client: AsyncGyozaClient, identity: ContainerIdentity) -> None:
        self._client = client
        self.identity = identity
        self._queue: deque[Report] = deque()
        self._news = trio.Event()
        self._dropped = 0
        self._seq = 0
        self.settled = False

    def note(self, kind: EventType, msg: str | int, payload: dict[str, Any] | None = None) -> None:
        """Queue an event; of waiting PROGRESS events in a row only the latest is kept."""
        last = self._queue[-1] if self._queue else None
        if last and kind == last.type == EventType.PROGRESS:
            last.msg, last.payload = msg, payload
        elif len(self._queue) >= MAX_QUEUED:
            self._dropped += 1
        else:
            self._put(Report(kind, msg, payload))

    async def confirm(
        self,
        kind: EventType,
        msg: str,
        payload: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
    ) -> None:
        """Send an event after all that are queued, and wait until the server has taken it.

        Raises:
            LeaseLost: If the attempt is not (or no longer) this worker's.
            ApiError: If the server refuses the event as such.
        """
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._put(Report(EventType.INFO, f"{dropped} events were dropped: too many at once."))
        report = Report(kind, msg, payload, summary)
        self._put(report)
        await report.taken.wait()
        if report.refusal and report.refusal.status in (404, 409):
            self.settled = True
            raise LeaseLost(report.refusal.detail) from report.refusal
        if report.refusal:
            raise report.refusal
        self.settled = self.settled or kind in TERMINAL

    async def serve(self) -> None:
        """Send what is queued, until cancelled."""
        while True:
            while self._queue:
                report = self._queue.popleft()
                report.refusal = await self._send(report)
                report.taken.set()
            self._news = trio.Event()
            await self._news.wait()

    def _put(self, report: Report) -> None:
        self._queue.append(report)
        self._news.set()

    async def _send(self, report: Report) -> ApiError | None:
        """Send until the server has taken the report, or return its refusal."""
        self._seq += 1
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
                    seq=self._seq,
                    summary=report.summary,
                )
            except ApiError as refusal:
                if refusal.status not in REPORT.statuses:
                    return refusal
                logger.warning("Run %s goes on trying: %s", self.identity.run_id, refusal)
            except ClientError as error:
                logger.warning("Run %s goes on trying: %s", self.identity.run_id, error)
            else:
                return None
            await backoff.wait()
