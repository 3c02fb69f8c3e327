"""What the engine sends for as long as a container runs: awaited without a thread."""

import ssl
from contextlib import suppress
from typing import Any

import trio

from gyoza.worker.containers.docker_http import Response

BLOCK = 256 * 1024
"""Bytes; more than lie in a socket at once, as a rule."""

GATHER_S = 0.02
"""Seconds in which output gathers behind a small block, so that the next is larger.

The engine makes a packet of every line that is written by itself. To take each as it comes costs
us, and the engine, more than all that is done with the text.
"""


def _buffer_of(response: Response) -> Any:
    """Return the buffer before the response's socket: what came along with the head lies there."""
    body: Any = response
    return body._fp.fp


class Inflow:
    """What comes on the connection after the head of a response, in HTTP's wrapping if it has one.

    Args:
        response: Nobody else reads from it any more.
        gather: Let small blocks gather, for output that may be much.
    """

    def __init__(self, response: Response, *, gather: bool) -> None:
        buffer = _buffer_of(response)
        self._socket: Any = buffer.raw._sock
        self._socket.settimeout(0)
        self._first: bytes = b""
        with suppress(OSError):  # it is met again by the first read
            self._first = buffer.peek(1)
        self._gather = gather
        self._gathers = self._left = False

    async def receive(self) -> bytes:
        """Return what has come, as soon as there is something; `b""` at the end or an error.

        A cancel is the end of it, too.
        """
        try:
            if self._gathers:
                await trio.sleep(GATHER_S)
            awaited_at = trio.current_time()
            while (block := self._take()) is None:
                await trio.lowlevel.wait_readable(self._socket)
        except trio.Cancelled:
            self._left = True
            raise
        # A line that comes alone goes on at once, and so does what comes after it.
        soon = trio.current_time() - awaited_at < GATHER_S
        self._gathers = self._gather and soon and len(block) < BLOCK // 2
        return block

    def _take(self) -> bytes | None:
        """Return what lies there, up to a block; `b""` at the end, None if it is to come."""
        if self._left:
            return b""
        pieces, self._first = [self._first], b""
        left = BLOCK - len(pieces[0])
        while left:
            try:
                piece: bytes = self._socket.recv(left)
            except (BlockingIOError, ssl.SSLWantReadError):
                return b"".join(pieces) or None
            except OSError:
                break
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)
