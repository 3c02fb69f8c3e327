"""What becomes of the bytes of one stream, when they are new: text and events."""

import codecs
from collections.abc import Iterator
from itertools import groupby
from typing import cast

from gyoza.worker.logs.events import EventParser, OpEvent
from gyoza.worker.logs.masker import Masker, Secrets

Events = Iterator[OpEvent]

KEPT_PIECE = 16 * 1024
"""Bytes of a line that the engine keeps before the line is finished."""


class TextStream:
    """One of the two streams: its own event parser, masker and UTF-8 decoder, in this order.

    Attributes:
        seen: Bytes of the stream that were fed.
        unfinished: Those at their end that an engine that goes down may lose: it keeps whole lines,
            and whole pieces of long ones.
    """

    def __init__(self, secrets: Secrets, seen: int = 0, *, line_start: bool = True) -> None:
        self.unfinished = b""
        self._secrets = secrets
        self._parser = EventParser(at_line_start=line_start)
        self._masker = Masker(secrets, at_line_start=line_start)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.seen = seen

    @property
    def undecided(self) -> int:
        """Bytes at the end of those seen that are neither text nor event yet."""
        return len(self._decoder.getstate()[0]) + self._masker.held + self._parser.held

    @property
    def at_line_start(self) -> bool:
        """Whether what is undecided, or else what comes next, begins a line."""
        if self._decoder.getstate()[0]:
            return False
        return (self._masker if self._masker.held else self._parser).at_line_start

    def feed(self, data: bytes) -> Iterator[str | OpEvent]:
        """Yield what is certain by now: text and events in order."""
        self.seen += len(data)
        line = data[data.rfind(b"\n") + 1 :]
        line = line if len(line) < len(data) else self.unfinished + data
        self.unfinished = line[len(line) // KEPT_PIECE * KEPT_PIECE :]
        yield from self._masked(self._parser.feed(data))

    def close(self) -> Iterator[str | OpEvent]:
        """Yield what was held back."""
        yield from self._masked(self._parser.close())
        yield self._decoder.decode(self._masker.flush(), final=True)

    def _masked(self, items: Iterator[bytes | OpEvent]) -> Iterator[str | OpEvent]:
        """Mask text and events; the text between two events at once, since each look costs."""
        for is_event, group in groupby(items, key=lambda item: isinstance(item, OpEvent)):
            if is_event:
                # What is undecided must be the end of what was seen: nothing is held across it.
                yield self._decoder.decode(self._masker.flush())
                yield from (self._secrets.mask_event(event) for event in cast("Events", group))
            else:
                text = b"".join(cast("Iterator[bytes]", group))
                yield self._decoder.decode(self._masker.feed(text))


class PassOver:
    """Leaves out what has been seen of a stream that is read from its first byte once more."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream
        self._sure = stream.seen - len(stream.unfinished)
        self._unfinished = stream.unfinished
        self._matched = 0

    def feed(self, data: bytes) -> bytes:
        """Return what of the data is new."""
        known = min(self._sure, len(data))
        self._sure -= known
        data = data[known:]
        expected = self._unfinished[self._matched : self._matched + len(data)]
        if data.startswith(expected):
            self._matched += len(expected)
            return data[len(expected) :]
        # The engine has lost the unfinished line when it went down, and this came after it.
        self._stream.seen -= len(self._unfinished)
        self._stream.unfinished = b""
        data = self._unfinished[: self._matched] + data
        self._unfinished = b""
        return data
