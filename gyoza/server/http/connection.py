"""One connection: its requests, one after the other, each answered by the application."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import h11
import trio
from starlette.types import ASGIApp, Scope

from gyoza.server.http.admission import Admission, Seat
from gyoza.server.http.exchange import Exchange, scope_of
from gyoza.server.http.wire import Wire
from gyoza.server.sparse_log import SparseLog

CONNECTION = "gyoza.connection"
"""Where the scope of a request keeps its `Connection`."""

_JSON = (b"content-type", b"application/json")
_NO_HTTP = {
    431: "The request's line and headers are too large.",
    501: "The request's body is encoded in a way that this server does not know.",
}


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the connections of one server share.

    Attributes:
        app: Answers the requests.
        admission: All connections.
        idle_s: Seconds for the head of a request, and between two requests.
        send_s: Seconds in which a client must take the next block of an answer.
        root_path: The path under which a proxy shows this server; empty for none.
        log: For what anybody can bring about.
        headers: Go with every answer that has none of the same name; the names are in lower case.
        idle: The scopes of waits for a next request, which end when the server does.
        ending: No connection gets another request.
    """

    app: ASGIApp
    admission: Admission
    idle_s: float
    send_s: float
    root_path: str = ""
    log: SparseLog = field(default_factory=lambda: SparseLog(logging.getLogger(__name__)))
    headers: Iterable[tuple[bytes, bytes]] = ()
    idle: set[trio.CancelScope] = field(default_factory=set[trio.CancelScope])
    ending: trio.Event = field(default_factory=trio.Event)


class Connection:
    """One client's connection.

    Args:
        service: What it shares with the others.
        wire: Its bytes.
        seat: Its place among the others.
        about: `scheme`, `client` and `server` of every request's scope.
    """

    def __init__(self, service: Service, wire: Wire, seat: Seat, about: dict[str, Any]) -> None:
        self._service = service
        self._wire = wire
        self._seat = seat
        self._about = about

    async def serve(self) -> None:
        """Answer requests until the connection ends, whoever ends it."""
        while await self._serve_next():
            self._service.admission.wait(self._seat)
        self._service.admission.wait(self._seat)
        await self._wire.close()

    def begin(self, key_id: str, *, vital: bool) -> bool:
        """Note that the request has shown a good key; see `Admission.begin`."""
        return self._service.admission.begin(self._seat, key_id, vital=vital)

    async def _serve_next(self) -> bool:
        """Answer the next request; return whether another one may follow."""
        try:
            request = await self._next_request()
        except h11.RemoteProtocolError as error:
            sentence = _NO_HTTP.get(error.error_status_hint, "The request is not HTTP/1.1 or 1.0.")
            await self._refuse(None, error.error_status_hint, sentence)
            return False
        if request is None:
            return False
        if request.http_version not in (b"1.1", b"1.0"):
            await self._refuse(request, 505, "This server speaks HTTP/1.1 and 1.0 only.")
            return False
        if request.method == b"CONNECT":
            await self._refuse(request, 405, "This server is no proxy.")
            return False
        await self._answer(request)
        protocol = self._wire.protocol
        if self._wire.gone or protocol.our_state is not h11.DONE:
            return False
        if protocol.their_state is not h11.DONE:
            return False  # part of a body that nobody has read
        protocol.start_next_cycle()
        return True

    async def _next_request(self) -> h11.Request | None:
        """Return the next request; None if none comes."""
        if self._service.ending.is_set():
            return None
        with trio.move_on_after(self._service.idle_s) as idle:
            self._service.idle.add(idle)
            try:
                event = await self._wire.next_event()
            finally:
                self._service.idle.discard(idle)
            if isinstance(event, h11.Request):
                return event
            self._wire.gone = True  # closed by the client
        return None

    async def _answer(self, request: h11.Request) -> None:
        exchange = Exchange(self._wire, request, self._service.headers)
        scope = scope_of(request, root_path=self._service.root_path, **self._about)
        scope[CONNECTION] = self
        try:
            await self._service.app(scope, exchange.receive, exchange.send)
        except* Exception as errors:
            self._service.log.error(
                "The server failed at %s %s: %r",
                scope["method"],
                scope["path"][:80],
                first_of(errors),
                exc_info=errors,
            )
        if not exchange.started:
            await exchange.answer(500, _problem("The server failed at this request."), [_JSON])
        elif not exchange.over:
            self._wire.gone = True  # cut off: the client must not take it for whole

    async def _refuse(self, request: h11.Request | None, status: int, sentence: str) -> None:
        """Answer what is not for the application."""
        if self._wire.protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        told = request or h11.Request(method="GET", target="/", headers=[("Host", "")])
        exchange = Exchange(self._wire, told, self._service.headers)
        await exchange.answer(status, _problem(sentence), [_JSON])


def connection_of(scope: Scope) -> Connection | None:
    """Return the connection of a request; None if it came by none, as in a test."""
    return scope.get(CONNECTION)


def first_of(error: BaseException) -> BaseException:
    """Return the first of a group's errors."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _problem(sentence: str) -> bytes:
    return json.dumps({"detail": sentence}).encode()
