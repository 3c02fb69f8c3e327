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
        self._header: bytes = b""
        self._stream = STDOUT
        self._left: int = 0

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield `(stream, bytes)` for the payloads in `block`, those of one stream in a row as one.

        An op that writes byte by byte makes a frame of each: what follows is done once for many.
        """
        stream, pieces = self._stream, list[bytes]()
        for number, piece in self._frames(block):
            if number != stream and pieces:
                yield stream, b"".join(pieces)
                pieces.clear()
            stream = number
            pieces.append(piece)
        if pieces:
            yield stream, b"".join(pieces)

    def _frames(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        block, self._header = self._header + block, b""
        at = 0
        while at < len(block):
            if self._left == 0:
                if len(block) - at < HEADER.size:
                    self._header = block[at:]
                    return
                header: tuple[int, int] = HEADER.unpack_from(block, at)
                self._stream = STDERR if header[0] == STDERR else STDOUT
                self._left = header[1]
                at += HEADER.size
                continue
            piece = block[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            yield self._stream, piece
