"""The gate of the application: key, role, rate and body, before anything is parsed."""

import json
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gyoza.models.limits import KIB, MIB
from gyoza.server.access import WorkersOf, refusal
from gyoza.server.body_memory import BodyMemory
from gyoza.server.http.connection import connection_of
from gyoza.server.keyring import SCOPE_KEY, Key, Keyring
from gyoza.server.limits import Limits
from gyoza.server.plain_json import Bodies, reading_body
from gyoza.server.rates import Rates, network_of, retry_after
from gyoza.server.sparse_log import SparseLog
from gyoza.server.turns import HEARTBEAT, Turns, until_answered

NOBODY = ""
"""In place of the id of a key, for requests that need none."""

WRONG_KEY = (
    "The API key is missing or wrong; set GYOZA_API_KEY_FILE or GYOZA_API_KEY. On the server's "
    "machine its own key is where the server says at its start."
)

TOLD = frozenset({401, 403, 429})
"""Statuses of the refusals that are logged."""

BUSY_S = 5.0
"""Seconds after which somebody may try again for whom there is no connection."""

HEALTH = frozenset({"/health", "/readyz"})

# What `/docs` shows holds no data, and a browser cannot send the header.
OPEN_PATHS = frozenset({*HEALTH, "/openapi.json"})

_log = logging.getLogger(__name__)

_MAY_BE_LARGE = re.compile(
    r"/runs(/[^/]+(/events(/batch)?|/logs)?)?|/definitions/[^/]+/runs", re.ASCII
)
"""Addresses to which inputs, outputs, events and logs go."""


class _Refused(Exception):
    """A request that is answered here.

    Attributes:
        retry_after_s: When it may be made again; 0 says nothing of that.
    """

    def __init__(self, status: int, detail: str, retry_after_s: float = 0.0) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s


class Gate:
    """ASGI middleware: lets through what the holder of a key may ask for, at a bounded cost.

    Args:
        app: What is behind it.
        keyring: The keys that are good.
        workers_of: Which workers have or had a run.
        limits: The caps and time-outs.
    """

    def __init__(
        self, app: ASGIApp, keyring: Keyring, workers_of: WorkersOf, limits: Limits
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._workers_of = workers_of
        self._limits = limits
        self._rates = Rates(limits.rate, limits.rate * limits.burst_s)
        # Apart, so that no run changes hands because others ask for much with the same key.
        self._heartbeats = Rates(limits.rate, limits.rate * limits.burst_s)
        self._health = Rates(limits.health_rate, limits.health_rate * limits.burst_s)
        self._turns = Turns(limits.at_once)
        self._memory = BodyMemory(limits.bodies_bytes)
        self._log = SparseLog(_log, lines=20)
        self._bodies = Bodies(limits.bodies_of_many_values)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it; what is no HTTP request reaches no code of ours."""
        if scope["type"] != "http":
            return
        try:
            _check_framing(scope)
            key = self._key(scope)
            key_id = _id_of(key)
            async with self._body(scope, receive, key_id) as data:
                with self._turns.of(scope, key_id) as turn:
                    await turn.take()
                    if key and not self._keyring.is_good(key):
                        raise _Refused(401, "The API key was revoked or has expired meanwhile.")
                    answer = until_answered(turn, send)
                    await self._let_in(key, scope, data, receive, answer)
        except _Refused as refused:
            self._tell(scope, refused)
            await _answer(refused, send)

    async def _let_in(
        self, key: Key | None, scope: Scope, data: bytes, receive: Receive, send: Send
    ) -> None:
        """Let a request through whose key may do what it asks for."""
        scope[SCOPE_KEY] = key
        with reading_body(scope, data, self._bodies, _id_of(key)) as body:
            replay = _replay(receive)
            if key is None:
                await self._app(scope, replay, send)
                return
            if tell := await refusal(key, scope, body, self._workers_of):
                raise _Refused(403, tell)
            if _may_wait(scope):
                await self._wait(key, scope, replay, send)
            else:
                await self._app(scope, replay, send)

    async def _wait(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that ends with its key, though it may have been good at its start."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        with self._keyring.waiting(key) as waiting:
            await self._app(scope, receive, watched)
        if waiting.cancelled_caught and not begun:
            raise _Refused(401, "The API key was revoked or has expired meanwhile.")

    def _tell(self, scope: Scope, refused: _Refused) -> None:
        """Log a refusal that says something of who asks, and not only of what he sends."""
        if refused.status in TOLD:
            who = (scope.get("client") or ("?",))[0]
            what = f"{scope['method']} {scope['path'][:80]!a}"
            self._log.warning("Refused %s from %s: %d, %s", what, who, refused.status, str(refused))

    def _key(self, scope: Scope) -> Key | None:
        """Return the key of a request; None for one that needs none."""
        network = network_of((scope.get("client") or ("",))[0])
        if scope["path"] in OPEN_PATHS and scope["method"] == "GET":
            if scope["path"] in HEALTH and (wait := self._health.take(network)):
                raise _Refused(429, "Too many questions for the health; ask less often.", wait)
            return None
        given = {name.lower(): value for name, value in scope["headers"]}.get(b"x-api-key", b"")
        key = self._keyring.find(given)
        if key is None:
            # Never anything but 401, however many wrong keys come: whoever shares an address with a
            # guesser, and has an old key, must hear of it. Nobody guesses 256 bits.
            raise _Refused(401, WRONG_KEY)
        heartbeat = scope["path"] == HEARTBEAT
        if wait := (self._heartbeats if heartbeat else self._rates).take(key.id):
            raise _Refused(429, "Too many requests with this key; ask less often.", wait)
        connection = connection_of(scope)
        if connection and not connection.begin(key.id, vital=heartbeat):
            raise _Refused(503, "The server has as many connections as it may; ask again.", BUSY_S)
        return key

    @asynccontextmanager
    async def _body(self, scope: Scope, receive: Receive, key_id: str) -> AsyncGenerator[bytes]:
        """Read the whole body, within the memory that there is for all of them.

        Without a key none is kept: nothing that is open to all needs one.
        """
        may_be_large = _MAY_BE_LARGE.fullmatch(scope["path"])
        most = self._limits.body_bytes if may_be_large else self._limits.small_body_bytes
        blocks: list[bytes] = []
        size, more = 0, True
        with self._memory.body(key_id) as body:
            body.reading.deadline = trio.current_time() + self._limits.body_s
            with body.reading:
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Refused(400, "The body did not come whole.")
                    more = message.get("more_body", False)
                    block = message.get("body", b"")
                    size += len(block)
                    body.reading.deadline += len(block) / self._limits.body_rate
                    if size > most:
                        raise _Refused(413, f"The body is larger than {_told(most)}.")
                    if key_id != NOBODY:
                        await self._memory.take(body, len(block))
                        blocks.append(block)
            if body.gave_way:
                raise _Refused(503, "The server has no room for this body now; retry.", BUSY_S)
            if body.reading.cancelled_caught:
                raise _Refused(408, "The body did not come in time.")
            self._memory.keep(body)
            data = b"".join(blocks)
            blocks.clear()
            yield data


def _id_of(key: Key | None) -> str:
    return key.id if key else NOBODY


def _told(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


def _check_framing(scope: Scope) -> None:
    """Refuse what a proxy on the way may have read as another number of requests."""
    names = {name.lower() for name, _ in scope["headers"]}
    if {b"content-length", b"transfer-encoding"} <= names:
        raise _Refused(400, "The length of the body is told in two ways; tell it in one.")


def _may_wait(scope: Scope) -> bool:
    return scope["method"] == "GET" or scope["path"].endswith("/claim")


def _replay(receive: Receive) -> Receive:
    """Return a `receive` that tells the end of the body first, which has been taken."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return replay


async def _answer(refused: _Refused, send: Send) -> None:
    """Answer; the connection is closed after that, once a client that still sends has read it."""
    body = json.dumps({"detail": str(refused)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if refused.retry_after_s:
        headers.append((b"retry-after", retry_after(refused.retry_after_s)))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
