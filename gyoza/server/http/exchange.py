"""One request and its answer: what an ASGI application receives and sends."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import h11
from starlette.types import Message, Scope

from gyoza.server.http.wire import BLOCK, Wire

Headers = list[tuple[bytes, bytes]]


class Exchange:
    """One request and its answer.

    Args:
        wire: The connection.
        request: The request's line and headers.
        headers: Go with every answer that has none of the same name.

    Attributes:
        started: The answer has begun.
        over: The answer has ended.
    """

    def __init__(
        self, wire: Wire, request: h11.Request, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        self._wire = wire
        self._protocol = wire.protocol
        self._headers = headers
        self._bodiless = request.method == b"HEAD"
        self._body_over = False
        self._head = b""
        self.started = self.over = False

    async def receive(self) -> Message:
        """Return the next part of the body; after its end, wait until the client is gone.

        A body that breaks off, or is not framed as HTTP says, ends with `http.disconnect` at once.
        """
        if not self._body_over:
            self._body_over = True
            try:
                event = await self._wire.next_event()
            except h11.RemoteProtocolError:
                return {"type": "http.disconnect"}
            if isinstance(event, h11.Data):
                self._body_over = False
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            if isinstance(event, h11.EndOfMessage):
                return {"type": "http.request", "body": b"", "more_body": False}
        await self._wire.until_gone()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take the start of the answer, or a part of its body; without effect once it is over."""
        if self._wire.gone or self.over:
            return
        if message["type"] == "http.response.start":
            await self._start(message["status"], message.get("headers", []))
        else:
            await self._continue(message.get("body", b""), more=message.get("more_body", False))

    async def answer(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole answer, after which the connection is closed."""
        length = (b"content-length", str(len(body)).encode())
        start = {"status": status, "headers": [*headers, length, (b"connection", b"close")]}
        await self.send({"type": "http.response.start", **start})
        await self.send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: Headers) -> None:
        self.started = True
        self._bodiless = self._bodiless or status in (204, 304)
        own = {name.lower() for name, _ in headers}
        more = [header for header in self._headers if header[0] not in own]
        self._head = self._protocol.send(
            h11.Response(status_code=status, headers=[*headers, *more])
        )
        if b"content-length" not in own:
            await self._flush()  # a stream, whose first part may take a while

    async def _continue(self, body: bytes, *, more: bool) -> None:
        pieces: list[bytes] = []
        if body and not self._bodiless:
            pieces += self._protocol.send_with_data_passthrough(h11.Data(data=body)) or []
        if not more:
            pieces += self._protocol.send_with_data_passthrough(h11.EndOfMessage()) or []
            self.over = True
        await self._flush(*pieces)

    async def _flush(self, *pieces: bytes) -> None:
        pieces = (self._head, *pieces)
        self._head = b""
        if sum(map(len, pieces)) <= BLOCK:
            pieces = (b"".join(pieces),)
        for piece in pieces:  # what is large is not copied
            await self._wire.write(piece)


def scope_of(request: h11.Request, **more: Any) -> Scope:
    """Return the ASGI scope of a request.

    Args:
        request: The request's line and headers.
        more: What the connection knows: `scheme`, `client`, `server`, `root_path`, extensions.
    """
    path, _, query = _origin_form(request.target).partition(b"?")
    prefix: str = more["root_path"]
    decoded = unquote(path.decode("ascii"), errors="replace")
    if prefix and (decoded == prefix or decoded.startswith(prefix + "/")):
        decoded = decoded[len(prefix) :] or "/"  # a proxy that passes its prefix on
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii").upper(),
        "path": decoded,
        "raw_path": path,
        "query_string": query,
        "headers": list(request.headers),
        **more,
    }


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a target that may be a whole URL, as for a proxy (RFC 9112, 3.2)."""
    scheme, mark, rest = target.partition(b"://")
    if mark and scheme.lower() in (b"http", b"https"):
        _, slash, path = rest.partition(b"/")
        return slash + path or b"/"
    return target
