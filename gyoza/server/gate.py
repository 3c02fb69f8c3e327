"""The door of the application: the API key and the size of bodies, before anything is parsed."""

import json

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gyoza.server.auth import verify_api_key

MAX_BODY_BYTES = 16 * 1024 * 1024
DRAIN_S = 10.0

# The documentation holds no data, and a browser cannot send the header.
OPEN_PATHS = frozenset({"/health", "/docs", "/openapi.json"})


class Gate:
    """ASGI middleware: 401 without the key, 413 for a body over the cap, declared or chunked."""

    def __init__(self, app: ASGIApp, api_key: str, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._api_key = api_key
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        opened = scope["path"] in OPEN_PATHS and scope["method"] == "GET"
        if not opened and not verify_api_key(self._api_key, headers.get(b"x-api-key")):
            tell = "The header X-API-Key is missing or wrong; see where the server says its key is."
            await _refuse(401, tell, receive, send)
            return
        body = await self._read(receive)
        if body is None:
            tell = f"The body is larger than {self._max_body_bytes // 1024 // 1024} MiB."
            await _refuse(413, tell, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> list[Message] | None:
        """Return the messages of the whole body, or None once it is over the cap."""
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._max_body_bytes:
                return None
            if not message.get("more_body", False):  # the end of the body, or of the connection
                return messages


def _replay(messages: list[Message], receive: Receive) -> Receive:
    pending = iter(messages)

    async def replay() -> Message:
        for message in pending:
            return message
        return await receive()

    return replay


async def _refuse(status: int, detail: str, receive: Receive, send: Send) -> None:
    """Answer, then read on: a client still sending would miss an answer on a closed connection."""
    body = json.dumps({"detail": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with trio.move_on_after(DRAIN_S):
        while (await receive()).get("more_body", False):
            pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
