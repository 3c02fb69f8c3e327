"""The body of the engine's answer to `logs`: taken out of its wrapping, and made whole."""

import logging
import struct
from collections.abc import Iterator

HEADER = struct.Struct(">BxxxL")
STDERR, ENGINE = 2, 3
# The engine keeps longer lines in pieces of this size, and the rest.
PIECE = 16 * 1024

logger = logging.getLogger(__name__)


class Chunks:
    """Takes HTTP's chunks off a body, in large blocks: the engine makes one of every line.

    Attributes:
        ended: The last chunk has come.
    """

    def __init__(self) -> None:
        self.ended = False
        self._pending: bytes = b"\r\n"  # every chunk's length stands between two line ends
        self._left: int = 0

    def feed(self, block: bytes) -> bytes:
        """Return what the block adds to the body.

        Raises:
            ValueError: If it is not in chunks.
        """
        block, self._pending = self._pending + block, b""
        pieces: list[bytes] = []
        at = 0
        while at < len(block) and not self.ended:
            if self._left:
                piece = block[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                continue
            end = block.find(b"\r\n", at + 2)
            if end < 0:
                self._pending = block[at:]
                break
            self._left = int(block[at + 2 : end], 16)
            self.ended = self._left == 0
            at = end + 2
        return b"".join(pieces)


class KeptLog:
    """Gives long lines their newlines back, which the log driver `local` forgets.

    Of a line longer than a piece it keeps all but the newline. A piece that does not fill its size
    ends the line; only of the very last one is it unknown whether there was a newline at all. An
    empty one is left out unless time stamps are asked for, which are taken off again here.
    """

    def __init__(self) -> None:
        self._pending: bytes = b""
        self._in_long_line = {1: False, STDERR: False}

    def feed(self, block: bytes) -> bytes:
        """Return the frames that are whole by now."""
        return b"".join(self._whole(self._pending + block))

    def _whole(self, block: bytes) -> Iterator[bytes]:
        at = 0
        while len(block) - at >= HEADER.size:
            stream, length = HEADER.unpack_from(block, at)
            start = at + HEADER.size
            if start + length > len(block):
                break
            at = start + length
            if stream >= ENGINE:  # not the container's: the engine cannot read its own file
                logger.warning("%s", block[start:at].decode(errors="replace").strip())
                continue
            piece = self._piece(stream, block[block.index(b" ", start, at) + 1 : at])
            yield HEADER.pack(stream, len(piece))
            yield piece
        self._pending = block[at:]

    def _piece(self, stream: int, piece: bytes) -> bytes:
        unfinished = not piece.endswith(b"\n")
        more = unfinished and len(piece) == PIECE
        if unfinished and not more and self._in_long_line[stream]:
            piece += b"\n"
        self._in_long_line[stream] = more
        return piece
