"""Splits the engine's multiplexed output into its two streams.

A frame is a header of 8 bytes (stream number, three zeros, length as 32-bit big-endian) and its
payload, as the Docker Engine API describes for attach.
"""

import struct
from collections.abc import Iterator

HEADER = struct.Struct(">BxxxL")
STDOUT, STDERR = 1, 2


class Demultiplexer:
    """Takes blocks cut anywhere and gives pieces of payload as soon as they are there."""

    def __init__(self) -> None:
        self._stream: int = STDOUT
        self._left: int = 0
        self._header: bytes = b""

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield `(stream, bytes)` for the payloads in `block`, those of one stream in a row as one.

        An op that writes line by line makes a frame of each: what is done here is done for every
        line, and what follows once for many.
        """
        block = self._header + block
        stream, at = self._stream, self._left
        pieces = [block[:at]]
        while at <= len(block) - HEADER.size:
            number, length = HEADER.unpack_from(block, at)
            if number != stream:
                yield from _joined(stream, pieces)
                stream, pieces = number, []
            start = at + HEADER.size
            at = start + length
            pieces.append(block[start:at])
        self._stream, self._left, self._header = stream, max(0, at - len(block)), block[at:]
        yield from _joined(stream, pieces)


def _joined(stream: int, pieces: list[bytes]) -> Iterator[tuple[int, bytes]]:
    if data := b"".join(pieces):
        yield STDERR if stream == STDERR else STDOUT, data
