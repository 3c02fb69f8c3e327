"""Bytes between h11 and a stream."""

import ssl
from typing import cast

import h11
import trio

MAX_HEAD = 32 * 1024
"""Bytes of a request line with its headers."""

BLOCK = 64 * 1024
"""Bytes that are read at once, and written before the client's pace is looked at."""

MAX_AHEAD = 64 * 1024
"""Bytes that a client may send ahead of the answer to its request."""

LINGER_S, LINGER_BYTES = 10.0, 32 * 1024 * 1024
"""How long, and for how much, a client that is still sending is listened to before the connection
is closed: the system would drop the answer that a client has not read yet (RFC 9112, 9.6)."""

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Wire:
    """One connection as h11 sees it.

    Args:
        stream: The connection, after its TLS handshake if it has one.
        send_s: Seconds for each block to be taken by the client's system.

    Attributes:
        protocol: The state of both sides.
        gone: The client has closed the connection, or has taken nothing for too long.
    """

    def __init__(self, stream: Stream, send_s: float) -> None:
        self._stream = stream
        self._send_s = send_s
        self.protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self.gone = False

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        """Return what the client has sent, as soon as it is whole.

        Raises:
            h11.RemoteProtocolError: If that is not HTTP.
        """
        while True:
            event = self.protocol.next_event()
            if event is not h11.NEED_DATA:
                return cast("h11.Event | type[h11.PAUSED]", event)
            if self.protocol.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self.write(self.protocol.send(go_on))
            self.protocol.receive_data(await self._read())

    async def until_gone(self) -> None:
        """Wait until the client closes the connection, or sends more than it may before time."""
        while len(self.protocol.trailing_data[0]) <= MAX_AHEAD:
            data = await self._read()
            self.protocol.receive_data(data)
            if not data:
                break
        self.gone = True

    async def write(self, data: bytes) -> None:
        """Send to the client, or to nobody once it is gone."""
        view = memoryview(data)
        while view and not self.gone:
            with trio.move_on_after(self._send_s) as sending:
                try:
                    await self._stream.send_all(view[:BLOCK])
                except GONE:
                    self.gone = True
            if sending.cancelled_caught:
                self.gone = True
            view = view[BLOCK:]
        if self.gone:
            await trio.aclose_forcefully(self._stream)  # wakes whoever reads

    async def close(self) -> None:
        """Close the connection in such a way that the client can read the last answer."""
        if not self.gone:
            with trio.move_on_after(LINGER_S):
                await self._linger()
        await trio.aclose_forcefully(self._stream)

    async def _linger(self) -> None:
        """Say that nothing more comes, and read on until the client says the same."""
        try:
            if isinstance(self._stream, trio.SocketStream):
                await self._stream.send_eof()
            left = LINGER_BYTES
            while left > 0 and (data := await self._read()):
                left -= len(data)
            if not isinstance(self._stream, trio.SocketStream):
                await self._stream.aclose()
        except GONE:
            pass

    async def _read(self) -> bytes:
        """Return the next bytes; empty if the client is gone, with or without a word."""
        try:
            return bytes(await self._stream.receive_some(BLOCK))
        except (*GONE, ssl.SSLError):
            return b""
