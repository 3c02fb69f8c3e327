"""Ships one attempt's log text from the spool to the server."""

import logging
from functools import partial

import trio

from gyoza.client import ApiError, AsyncGyozaClient, ClientError
from gyoza.client.retry import REPORT
from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.logs.spool import CHUNK
from gyoza.worker.run_record import RunRecord

PACE_S = 0.1
"""Pause in which more text gathers for the next chunk, unless there is a whole one already."""

PLAIN_FROM = 64 * 1024
"""Characters from which on text goes as it is, and not as JSON: that takes its time for much."""

logger = logging.getLogger(__name__)


class LogShipper:
    """Sends the spool's text in chunks by offset, as it grows; never slows the container.

    A server that keeps no logs (404), or keeps none of this attempt any more (409), ends it, and so
    does one that answers 500 to the same chunk as often as the client tries. Much text goes as it
    is; to a server that refuses that, as JSON like all other.

    Attributes:
        done: Set once all text is sent after `close`, or the server wants none.
    """

    def __init__(
        self,
        client: AsyncGyozaClient,
        identity: ContainerIdentity,
        record: RunRecord,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._client = client
        self._identity = identity
        self._record = record
        self._limiter = limiter
        self._sent = record.log_sent
        self._plain = True
        self._backoff = Backoff()
        self._news = trio.Event()
        self._closing = trio.Event()
        self.done = trio.Event()

    def grown(self) -> None:
        """Say that the spool has more text."""
        self._news.set()

    async def finish(self) -> None:
        """Wait until all text in the spool is sent, or the server wants none."""
        self._closing.set()
        self._news.set()
        await self.done.wait()

    async def serve(self) -> None:
        """Send until `finish` was called and everything is sent."""
        spool = self._record.spool
        try:
            while self._sent < spool.size or not self._closing.is_set():
                if self._sent >= spool.size:
                    self._news = trio.Event()
                    await self._news.wait()
                    continue
                await self._send_chunk()
                if spool.size - self._sent < CHUNK:
                    with trio.move_on_after(PACE_S):
                        await self._closing.wait()
        except ApiError as refusal:
            if refusal.status != 404:
                logger.info("Run %s: its log is cut: %s", self._identity.run_id, refusal)
        self.done.set()

    async def discard(self) -> None:
        """Send nothing, in place of `serve`."""
        self.done.set()

    async def _send_chunk(self) -> None:
        read = partial(self._record.spool.read, self._sent)
        text = await trio.to_thread.run_sync(read, limiter=self._limiter)
        plain = self._plain and len(text) >= PLAIN_FROM
        send = self._client.put_logs if plain else self._client.append_logs
        try:
            await send(
                self._identity.run_id,
                self._sent,
                text,
                worker_id=self._identity.worker_id,
                attempt=self._identity.attempt,
            )
        except (ApiError, ClientError) as error:
            refused = isinstance(error, ApiError)
            if refused and (error.status == 500 or error.status not in REPORT.statuses):
                if not plain:
                    raise
                self._plain = False
                return
            logger.warning(
                "Run %s keeps its log and goes on trying: %s", self._identity.run_id, error
            )
            await self._backoff.wait()
        else:
            self._backoff.reset()
            self._sent += len(text.encode())
            sent = partial(self._record.note_sent, log=self._sent)
            await trio.to_thread.run_sync(sent, limiter=self._limiter)
