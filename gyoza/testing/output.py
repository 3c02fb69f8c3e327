"""The output of a fake container, for its readers and for the log that the engine keeps."""

import math
import struct
from collections.abc import Generator
from contextlib import contextmanager, suppress

import trio

from gyoza.worker.containers.engine import LogStream
from gyoza.worker.errors import EngineUnavailable

# Frames a container can write before it waits for its reader, as behind a real pipe.
READ_AHEAD = 16

# Bytes of a line that are kept before it is complete.
PIECE = 16 * 1024


class FakeOutput:
    """Everything one container writes."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._unfinished = {1: b"", 2: b""}
        self._attached: list[FakeLogStream] = []
        self._followers: list[FakeLogStream] = []
        self._readers: list[FakeLogStream] = []
        self._ended = False

    async def write(self, stream: int, data: bytes) -> None:
        """Keep the data and give it to all who are attached; waits for who is behind."""
        await trio.lowlevel.checkpoint()
        if self._ended:
            return
        self.keep(stream, data)
        for reader in list(self._attached):
            await reader.give(_frame(stream, data))

    def keep(self, stream: int, data: bytes) -> None:
        """Keep the data, each line as soon as it is complete, of long ones each whole piece."""
        *lines, rest = (self._unfinished[stream] + data).split(b"\n")
        whole = len(rest) // PIECE * PIECE
        self._unfinished[stream] = rest[whole:]
        for piece in [*(line + b"\n" for line in lines), rest[:whole]]:
            if piece:
                frame = _frame(stream, piece)
                self._kept.append(frame)
                for reader in self._followers:
                    reader.give_nowait(frame)

    def end(self) -> None:
        """End what is open; a follower misses the unfinished lines, as it may for real."""
        self._ended = True
        for reader in self._attached + self._followers:
            reader.end()
        self._kept += [_frame(stream, rest) for stream, rest in self._unfinished.items() if rest]

    def break_off(self) -> None:
        """Break what is open, as connections do."""
        for reader in self._attached + self._followers + self._readers:
            reader.break_off()

    def forget_unfinished_lines(self) -> None:
        """Lose what is not kept yet because its line is not complete."""
        self._unfinished = {1: b"", 2: b""}

    @contextmanager
    def attach(self) -> Generator[LogStream]:
        """Open what is written from now on."""
        with _opened(FakeLogStream(READ_AHEAD), self._attached) as stream:
            yield stream

    @contextmanager
    def logs(self, *, follow: bool) -> Generator[LogStream]:
        """Open what is kept and, with `follow`, what will be."""
        stream = FakeLogStream(math.inf, certain=not follow)
        with _opened(stream, self._followers if follow else self._readers):
            for frame in self._kept:
                stream.give_nowait(frame)
            if self._ended or not follow:
                stream.end()
            yield stream


class FakeLogStream:
    """See `LogStream`.

    Args:
        read_ahead: How many frames it holds before who gives them has to wait.
        certain: Its end is never that of a connection; that would be an error.
    """

    def __init__(self, read_ahead: float, *, certain: bool = False) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](read_ahead)
        self._certain = certain
        self._broken = False

    async def receive(self) -> bytes:
        """See `LogStream.receive`."""
        if self._broken and self._certain:
            raise EngineUnavailable("The connection to the container engine broke.")
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return b""
        except trio.Cancelled:
            self._receive.close()
            raise

    async def give(self, frame: bytes) -> None:
        """Pass on a frame, waiting for room."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # nobody reads
            await self._send.send(frame)

    def give_nowait(self, frame: bytes) -> None:
        """Pass on a frame for which there is room."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self._send.send_nowait(frame)

    def end(self) -> None:
        """Let it end after what was given."""
        self._send.close()

    def break_off(self) -> None:
        """Let it end as a connection does that breaks."""
        self._broken = True
        self._send.close()

    def close(self) -> None:
        """Release it."""
        self._send.close()
        self._receive.close()


@contextmanager
def _opened(stream: FakeLogStream, among: list[FakeLogStream]) -> Generator[FakeLogStream]:
    among.append(stream)
    try:
        yield stream
    finally:
        among.remove(stream)
        stream.close()


def _frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data
