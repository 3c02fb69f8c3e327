"""Follows one container's output: reads blocks, finds events, keeps the tail, fills the spool."""

import codecs
import logging
from collections.abc import Callable, Iterator

import trio

from gyoza.worker.containers.engine import LogStream
from gyoza.worker.logs.demultiplexer import STDERR, STDOUT, Demultiplexer
from gyoza.worker.logs.events import EventParser, OpEvent
from gyoza.worker.logs.spool import LogSpool
from gyoza.worker.logs.tail import Tail

BLOCKS = 4
"""Blocks read ahead of the parser; beyond that the job is slowed, never memory filled."""

logger = logging.getLogger(__name__)


class _TextStream:
    """One of the two streams: its own event parser and its own UTF-8 decoder."""

    def __init__(self) -> None:
        self._parser = EventParser()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> Iterator[str | OpEvent]:
        for item in self._parser.feed(data):
            yield item if isinstance(item, OpEvent) else self._decoder.decode(item)

    def close(self) -> Iterator[str | OpEvent]:
        for item in self._parser.close():
            yield item if isinstance(item, OpEvent) else self._decoder.decode(item)
        yield self._decoder.decode(b"", final=True)


class ContainerOutput:
    """What one container writes, from the attach stream to events, tail and spool.

    Args:
        spool: Takes the ordinary text.
        on_event: Called for every event, in order; must not block.
        on_text: Called when the spool has grown.
        limiter: For the threads that write the spool.

    Attributes:
        tail: The end of the ordinary text.
        ended: Set once nothing more is taken: at the end of the output, as a rule.
    """

    def __init__(
        self,
        spool: LogSpool,
        on_event: Callable[[OpEvent], None],
        on_text: Callable[[], None],
        limiter: trio.CapacityLimiter,
    ) -> None:
        self.tail = Tail()
        self.ended = trio.Event()
        self._spool: LogSpool | None = spool
        self._on_event = on_event
        self._on_text = on_text
        self._limiter = limiter

    async def follow(self, stream: LogStream) -> None:
        """Take the stream to its end; a reader and a parser task with a few blocks in between."""
        send, receive = trio.open_memory_channel[bytes](BLOCKS)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, stream, send)
                nursery.start_soon(self._parse, receive)
        finally:
            self.ended.set()

    async def _read(self, stream: LogStream, send: trio.MemorySendChannel[bytes]) -> None:
        async with send:
            while block := await stream.receive():
                await send.send(block)

    async def _parse(self, receive: trio.MemoryReceiveChannel[bytes]) -> None:
        demultiplexer = Demultiplexer()
        streams = {STDOUT: _TextStream(), STDERR: _TextStream()}
        async with receive:
            async for block in receive:
                pieces = demultiplexer.feed(block)
                await self._take(i for number, data in pieces for i in streams[number].feed(data))
        await self._take(i for stream in streams.values() for i in stream.close())
        if self._spool:
            await self._in_thread(self._spool.finish, self.tail.text())

    async def _take(self, items: Iterator[str | OpEvent]) -> None:
        texts: list[str] = []
        for item in items:
            if isinstance(item, OpEvent):
                self._on_event(item)
            else:
                texts.append(item)
        if text := "".join(texts):
            self.tail.add(text)
            if self._spool:
                await self._in_thread(self._spool.append, text)

    async def _in_thread(self, write: Callable[[str], None], text: str) -> None:
        """Write to the spool; a full disk costs the server's copy of the log, not the run."""
        try:
            await trio.to_thread.run_sync(write, text, limiter=self._limiter)
        except OSError as error:
            logger.warning("The rest of a run's log does not reach the server: %s", error)
            self._spool = None
        else:
            self._on_text()
