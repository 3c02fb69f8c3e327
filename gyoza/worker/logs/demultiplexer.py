"""Splits the engine's multiplexed output into its two streams.

A frame is a header of 8 bytes (stream number, three zeros, length as 32-bit big-endian) and its
payload, as the Docker Engine API describes for attach.
"""

from collections.abc import Iterator

HEADER = 8
STDOUT, STDERR = 1, 2


class Demultiplexer:
    """Takes blocks cut anywhere and gives pieces of payload as soon as they are there."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield `(stream, bytes)` for the payloads in `block`."""
        at = 0
        while at < len(block):
            if self._left == 0:
                missing = HEADER - len(self._header)
                self._header += block[at : at + missing]
                at += missing
                if len(self._header) == HEADER:
                    self._stream = STDERR if self._header[0] == STDERR else STDOUT
                    self._left = int.from_bytes(self._header[4:], "big")
                    self._header = b""
                continue
            piece = block[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            yield self._stream, piece
