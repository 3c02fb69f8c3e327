"""Follows one container's output: reads blocks, finds events, keeps the tail, fills the record.

The output is taken from the attach stream, which is opened before the start and misses nothing. If
that breaks, or the worker was away, it goes on with what the engine has kept of the output, from
its first byte: of each stream as many bytes are passed over as were taken before.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import trio

from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.engine import ContainerEngine, LogStream
from gyoza.worker.errors import EngineError, EngineUnavailable
from gyoza.worker.lacks import in_thread
from gyoza.worker.logs.demultiplexer import STDERR, STDOUT, Demultiplexer
from gyoza.worker.logs.events import OpEvent
from gyoza.worker.logs.masker import Secrets
from gyoza.worker.logs.streams import PassOver, TextStream
from gyoza.worker.logs.tail import Tail
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.run_record import Position, RunRecord

BLOCKS = 4
"""Blocks read ahead of the parser; beyond that the job is slowed, never memory filled."""

AT_ONCE = 256 * 1024
"""Bytes that are parsed at once, so that a cancel never waits long for the thread that does it."""

SMALL = 4096
"""Bytes up to which a block without secrets to look for is parsed without a thread."""

LOOK_AGAIN_S = 1.0
"""Seconds after the end of a stream within which the container has exited, unless it broke."""

logger = logging.getLogger(__name__)


class ContainerOutput:
    """What one container writes, from the engine's streams to events, tail and record.

    Args:
        record: Says where to go on, and takes text and events.
        reporter: Sends the events once they are recorded.
        on_text: Called when there is more text to ship.
        limiter: For the threads that write the record.
        secrets: Masked before anything is kept.
        parsers: For the threads that parse: what they get is chosen by ops, and may take them long.

    Attributes:
        tail: The end of the ordinary text.
        ended: Set once nothing more is taken: at the end of the output, as a rule.
    """

    def __init__(
        self,
        record: RunRecord,
        reporter: EventReporter,
        on_text: Callable[[], None],
        limiter: trio.CapacityLimiter,
        secrets: Secrets | None = None,
        parsers: trio.CapacityLimiter | None = None,
    ) -> None:
        self.tail = Tail.after(record.spool)
        self.ended = trio.Event()
        self._record = record
        self._reporter = reporter
        self._on_text = on_text
        self._limiter = limiter
        self._parsers = parsers or trio.CapacityLimiter(1)
        self._masks = bool(secrets)
        self._recorded = True
        position = record.position
        self._streams = {
            number: TextStream(secrets or Secrets(), seen, line_start=start)
            for number, seen, start in zip(
                (STDOUT, STDERR), position.taken, position.line_starts, strict=True
            )
        }
        self._exited = trio.Event()
        self._whole = True
        self._blocks = 0

    async def end(self, stall_s: float) -> None:
        """Wait for the end of the output once the container has exited.

        Returns as well if nothing of it came for `stall_s` seconds, or the container has not
        exited.
        """
        while self._exited.is_set() and not self.ended.is_set():
            blocks = self._blocks
            with trio.move_on_after(stall_s):
                await self.ended.wait()
            if blocks == self._blocks:
                return

    def container_exited(self, *, disturbed: bool) -> None:
        """Say that the container has exited; `disturbed`, that the stream may have broken."""
        self._whole = self._whole and not disturbed
        self._exited.set()

    async def follow(
        self, engine: ContainerEngine, container_id: str, attached: LogStream | None = None
    ) -> None:
        """Take the output to its end, which is after `container_exited`.

        Args:
            engine: Where the container is.
            container_id: Its id.
            attached: Its attach stream, opened before its start; none if it was started before.
        """
        try:
            await self._follow(engine, container_id, attached)
        finally:
            self.ended.set()

    async def _follow(
        self, engine: ContainerEngine, container_id: str, attached: LogStream | None
    ) -> None:
        if attached:
            await self._take_stream(attached)
            with trio.move_on_after(LOOK_AGAIN_S):
                await self._exited.wait()
        else:
            self._whole = False
        while not self._exited.is_set():
            self._whole = False
            await self._take_kept(engine, container_id, follow=True)
            with trio.move_on_after(LOOK_AGAIN_S):
                await self._exited.wait()
        backoff = Backoff()
        while not self._whole:
            self._whole = await self._take_kept(engine, container_id, follow=False)
            if not self._whole:
                await backoff.wait()
        await self._take([i for stream in self._streams.values() for i in stream.close()], end=True)

    async def _take_kept(self, engine: ContainerEngine, container_id: str, *, follow: bool) -> bool:
        """Take what the engine has kept, from where we are; return whether that worked."""
        seen = {number: PassOver(stream) for number, stream in self._streams.items()}
        worked = True
        try:
            async with engine.logs(container_id, follow=follow) as stream:
                await self._take_stream(stream, seen)
        except* EngineUnavailable as errors:
            logger.debug("Run %s: %s", self._record.run.id, errors)
            worked = False
        except* EngineError as errors:
            level = logging.DEBUG if follow else logging.WARNING
            sentence = "Run %s: the rest of its output is lost: %s"
            logger.log(level, sentence, self._record.run.id, errors.exceptions[0])
        return worked

    async def _take_stream(
        self, stream: LogStream, seen: dict[int, PassOver] | None = None
    ) -> None:
        """Take a stream to its end; a reader and a parser task with a few blocks in between."""
        send, receive = trio.open_memory_channel[bytes](BLOCKS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, stream, send)
            nursery.start_soon(self._parse, receive, seen or {})

    async def _read(self, stream: LogStream, send: trio.MemorySendChannel[bytes]) -> None:
        async with send:
            while block := await stream.receive():
                await send.send(block)

    async def _parse(
        self, receive: trio.MemoryReceiveChannel[bytes], seen: dict[int, PassOver]
    ) -> None:
        demultiplexer = Demultiplexer()
        async with receive:
            async for block in receive:
                blocks = [block, *_waiting(receive)]
                self._blocks += len(blocks)
                data = b"".join(blocks)
                for at in range(0, len(data), AT_ONCE):
                    part = data[at : at + AT_ONCE]
                    await self._take(await self._parsed(demultiplexer, part, seen))

    async def _parsed(
        self, demultiplexer: Demultiplexer, data: bytes, seen: dict[int, PassOver]
    ) -> list[str | OpEvent]:
        """Return the text and the events in a block, from a thread if that may take its time."""

        def parse() -> list[str | OpEvent]:
            return [*self._items(demultiplexer.feed(data), seen)]

        if self._masks or len(data) > SMALL:
            return await in_thread(parse, limiter=self._parsers)
        return parse()

    def _items(
        self, pieces: Iterator[tuple[int, bytes]], seen: dict[int, PassOver]
    ) -> Iterator[str | OpEvent]:
        for number, data in pieces:
            new = seen[number].feed(data) if seen else data
            if new:
                yield from self._streams[number].feed(new)

    async def _take(self, items: list[str | OpEvent], *, end: bool = False) -> None:
        text = "".join(item for item in items if isinstance(item, str))
        self.tail.add(text)
        reports = self._reporter.admit([item for item in items if isinstance(item, OpEvent)])
        await self._keep(text, [r.fact for r in reports if r.lasting], end=end)
        self._reporter.put(*reports)

    async def _keep(self, text: str, events: list[dict[str, object]], *, end: bool) -> None:
        """Record a block; a full disk costs the server's copy of the log, not the run."""
        if not self._recorded:
            return
        streams = self._streams.values()
        position = Position(
            tuple(stream.seen - stream.undecided for stream in streams),
            tuple(stream.at_line_start for stream in streams),
            self._reporter.counted,
        )
        keep = partial(
            self._record.note_output, text, events, position, self.tail.end() if end else None
        )
        try:
            await in_thread(keep, limiter=self._limiter)
        except OSError as error:
            logger.warning(
                "Run %s: the rest of its log does not reach the server: %s",
                self._record.run.id,
                error,
            )
            self._recorded = False
        else:
            self._on_text()


def _waiting(receive: trio.MemoryReceiveChannel[bytes]) -> Iterator[bytes]:
    """Yield the blocks that have come while those before them were dealt with."""
    with suppress(trio.WouldBlock, trio.EndOfChannel):
        while True:
            yield receive.receive_nowait()
