"""Sends reports of one attempt, each again until the server has taken or refused it."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gyoza.client import ApiError, AsyncGyozaClient, ClientError
from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.reports.report import Report
from gyoza.worker.server_contact import ServerContact, is_away

logger = logging.getLogger(__name__)


class Delivery:
    """Sends the reports of one attempt.

    Args:
        client: Used for nothing but reports.
        identity: The attempt.
        contact: What is known of the server.

    Attributes:
        takes_batches: The server has not refused any batch yet.
    """

    def __init__(
        self, client: AsyncGyozaClient, identity: ContainerIdentity, contact: ServerContact
    ) -> None:
        self._client = client
        self._identity = identity
        self._contact = contact
        self.takes_batches = True

    async def send(self, reports: Sequence[Report]) -> None:
        """Send reports until the server has taken them, or note its refusal with each.

        Several go in one request. If the server refuses that, they go one by one, now and from now
        on: it may know no batches, or refuse one of the events, and only then it is known which.
        """
        refusal = await self._send_batch(reports) if len(reports) > 1 else None
        if refusal:
            logger.debug("Run %s tells its events one by one: %s", self._identity.run_id, refusal)
            self.takes_batches = False
        if refusal or len(reports) == 1:
            for report in reports:
                report.refusal = await self._send(report)

    async def _send_batch(self, reports: Sequence[Report]) -> ApiError | None:
        events = [
            {"type": r.type, "msg": r.msg, "payload": r.payload or {}, "seq": r.seq}
            for r in reports
        ]
        worker_id, attempt = self._identity.worker_id, self._identity.attempt
        return await self._persist(
            lambda: self._client.add_events(
                self._identity.run_id, events, worker_id=worker_id, attempt=attempt
            ),
            # Whoever finds it too large, the server or a proxy, may take each of them.
            is_answer=lambda error: error.status == 413 or self._contact.has_no_endpoint(error),
        )

    async def _send(self, report: Report) -> ApiError | None:
        return await self._persist(
            lambda: self._client.add_event(
                self._identity.run_id,
                report.type,
                report.msg,
                report.payload,
                worker_id=self._identity.worker_id,
                attempt=self._identity.attempt,
                seq=report.seq,
                summary=report.summary,
                minimal=True,
            )
        )

    async def _persist(
        self,
        send: Callable[[], Awaitable[Mapping[str, Any]]],
        is_answer: Callable[[ApiError], bool] = lambda _: False,
    ) -> ApiError | None:
        """Send until the server has taken it, or return its refusal.

        Args:
            send: Sends it once.
            is_answer: Whether an error counts as a refusal though the server may be away.
        """
        backoff = Backoff()
        while True:
            try:
                self._contact.require(await send(), "state")
            except (ApiError, ClientError) as error:
                if isinstance(error, ApiError) and (is_answer(error) or not is_away(error)):
                    return error
                logger.warning(
                    "Run %s: a report has not arrived, retrying: %s", self._identity.run_id, error
                )
            else:
                return None
            await backoff.wait()
