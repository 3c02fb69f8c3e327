"""HTTP/1.1 with as little work as possible, so that a load of thousands is not its own bottleneck.

It speaks with servers of ours only: every answer has a length.
"""

import json
from typing import Any, Self

import trio

from gyoza.client.connection import Connection

RECEIVED = 64 * 1024
END = b"\r\n\r\n"
IDLE_S = 30.0
"""After so long a connection is opened anew, before the server closes it under a request."""


class LightConnection:
    """One connection, for one request at a time."""

    def __init__(self, server: Connection, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._used = trio.current_time()
        self._head = f"HTTP/1.1\r\nHost: x\r\nX-API-Key: {server.api_key}\r\n"

    @classmethod
    async def open(cls, server: Connection) -> Self:
        """Connect to a server."""
        return cls(server, await _connect(server))

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    async def get(self, path: str) -> Any:
        """Return the answer to a GET."""
        return await self._ask(f"GET {path} {self._head}\r\n".encode())

    async def post(self, path: str, body: Any) -> Any:
        """Return the answer to a POST."""
        data = json.dumps(body).encode()
        head = f"POST {path} {self._head}Content-Type: application/json\r\n"
        return await self._ask(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

    async def _ask(self, request: bytes) -> Any:
        if trio.current_time() - self._used > IDLE_S:
            await self._reconnect()
        await self._stream.send_all(request)
        head, body = b"", b""
        while not head:
            body += await self._receive()
            before, found, after = body.partition(END)
            if found:
                head, body = before, after
        fields = head.lower().partition(b"content-length:")[2]
        length = int(fields.partition(b"\r\n")[0])
        while len(body) < length:
            body += await self._receive()
        if b"\r\nconnection: close" in head.lower():  # after so many requests, as servers do
            await self._reconnect()
        self._used = trio.current_time()
        if not head.startswith(b"HTTP/1.1 2"):
            raise OSError(f"{head.decode()}: {body.decode()}")
        return json.loads(body)

    async def _reconnect(self) -> None:
        await self._stream.aclose()
        self._stream = await _connect(self._server)

    async def _receive(self) -> bytes:
        data = await self._stream.receive_some(RECEIVED)
        if not data:
            raise OSError("the server has closed the connection")
        return data


async def _connect(server: Connection) -> trio.SocketStream:
    host, _, port = server.url.rpartition("/")[2].rpartition(":")
    return await trio.open_tcp_stream(host, int(port))
