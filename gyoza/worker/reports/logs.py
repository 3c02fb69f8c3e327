"""Ships one attempt's log text from the spool to the server."""

import logging
from functools import partial

import trio

from gyoza.client import ApiError, AsyncGyozaClient, ClientError, ForeignAnswer
from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.lacks import in_thread
from gyoza.worker.logs.spool import CHUNK
from gyoza.worker.run_record import RunRecord
from gyoza.worker.server_contact import ServerContact, is_away

PACE_S = 0.1
"""Pause in which more text gathers for the next chunk, unless there is a whole one already."""

PLAIN_FROM = 64 * 1024
"""Characters from which on text goes as it is, and not as JSON: that takes its time for much."""

LEAST_CHUNK = 16 * 1024
"""Bytes that are sent at once, at least, through a proxy that finds more too large."""

FAILURES = 24
"""Times in a row that a server fails at a chunk (500) until the log is cut: some ten minutes."""

logger = logging.getLogger(__name__)


class LogShipper:
    """Sends the spool's text in chunks by offset, as it grows; never slows the container.

    The last chunk tells the server that the log is whole; if it was not known to be the last, a
    request without text does. A server that keeps no logs (404), or keeps none of this attempt any
    more (409), ends the shipping, and so does one that fails at the same chunk again and again.
    Much text goes as it is; to a server that refuses that, as JSON like all other.

    Args:
        client: Used for nothing but reports.
        identity: The attempt.
        record: Has the text, and remembers how much of it is sent.
        limiter: For the threads that read and write the record.
        contact: What is known of the server; nothing, if not given.

    Attributes:
        done: Set once all text is sent after `finish`, or the server wants none.
        closed: Set once the server also knows that this is all.
    """

    def __init__(
        self,
        client: AsyncGyozaClient,
        identity: ContainerIdentity,
        record: RunRecord,
        limiter: trio.CapacityLimiter,
        contact: ServerContact | None = None,
    ) -> None:
        self._client = client
        self._identity = identity
        self._record = record
        self._limiter = limiter
        self._contact = contact or ServerContact()
        self._sent = record.log_sent
        self._chunk = CHUNK
        self._plain = True
        self._failures = 0
        self._backoff = Backoff()
        self._news = trio.Event()
        self._closing = trio.Event()
        self.done = trio.Event()
        self.closed = trio.Event()

    def grown(self) -> None:
        """Say that the spool has more text."""
        self._news.set()

    async def finish(self) -> None:
        """Wait until all text in the spool is sent, or the server wants none."""
        self._closing.set()
        self._news.set()
        await self.done.wait()

    async def serve(self) -> None:
        """Send until `finish` was called, everything is sent and the server knows that."""
        try:
            while not self._closing.is_set() or self._is_text_left:
                if not self._is_text_left:
                    self._news = trio.Event()
                    await self._news.wait()
                    continue
                await self._send_chunk()
                if self._record.spool.size - self._sent < CHUNK:
                    with trio.move_on_after(PACE_S):
                        await self._closing.wait()
            self.done.set()
            while not self.closed.is_set():
                await self._send_chunk()
        except (ApiError, OSError, MemoryError) as error:
            if not isinstance(error, ApiError) or error.status != 404:
                logger.info("Run %s: its log is cut: %s", self._identity.run_id, error)
        await self.discard()

    async def discard(self) -> None:
        """Send nothing, in place of `serve`."""
        self.done.set()
        self.closed.set()

    @property
    def _is_text_left(self) -> bool:
        return self._sent < self._record.spool.size

    async def _send_chunk(self) -> None:
        """Send what comes next, without text if nothing does.

        Raises:
            ApiError: If the server wants no more.
            OSError: If the text cannot be read.
        """
        text = await self._read() if self._is_text_left else ""
        end = self._sent + len(text.encode())
        final = self._closing.is_set() and end == self._record.spool.size
        plain = self._plain and len(text) >= PLAIN_FROM
        send = self._client.put_logs if plain else self._client.append_logs
        try:
            answer = await send(
                self._identity.run_id,
                self._sent,
                text,
                worker_id=self._identity.worker_id,
                attempt=self._identity.attempt,
                final=final,
            )
            self._contact.require(answer, "offset")
        except (ApiError, ClientError) as error:
            await self._recover(error, plain=plain)
            return
        self._failures = 0
        self._backoff.reset()
        self._sent = end
        if text:
            note = partial(self._record.note_sent, log=end)
            await in_thread(note, limiter=self._limiter)
        if final:
            self.closed.set()

    async def _recover(self, error: ApiError | ClientError, *, plain: bool) -> None:
        """Wait until the chunk can be sent again, or change how if that may help.

        Raises:
            ApiError: If the server wants none.
        """
        if isinstance(error, ApiError):
            if error.status == 413 and self._chunk > LEAST_CHUNK:
                self._chunk = max(LEAST_CHUNK, self._chunk // 2)
                return
            failed = error.status == 500 and not isinstance(error, ForeignAnswer)
            refused = not is_away(error) or self._contact.has_no_endpoint(error)
            if plain and (refused or failed or error.status < 500):
                self._plain = False
                return
            self._failures += failed
            if refused or self._failures == FAILURES:
                raise error
        logger.warning("Run %s keeps its log, retrying: %s", self._identity.run_id, error)
        await self._backoff.wait()

    async def _read(self) -> str:
        read = partial(self._record.spool.read, self._sent, self._chunk)
        return await in_thread(read, limiter=self._limiter)
