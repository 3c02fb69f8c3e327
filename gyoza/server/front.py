"""What stands before the gate: HEAD as GET without its body, and the page of the documentation.

The page and its programs are files of this package: nothing is loaded from elsewhere, so that a
closed network has it, and nobody else's program runs where a key is typed.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import trio
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
ALWAYS = {
    "content-security-policy": NOTHING,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
"""What every answer forbids to a browser."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

# Addresses are relative, so that they are right under any prefix that a proxy adds.
_PAGE = b"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gyoza server: API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
_START = b"""\
SwaggerUIBundle({
  dom_id: '#docs',
  url: 'openapi.json',
  deepLinking: true,
  validatorUrl: null,
  queryConfigEnabled: false,
});
"""


@dataclass(frozen=True)
class _File:
    kind: str
    name: str = ""
    content: bytes = b""


_FILES = {
    "/docs": _File("text/html; charset=utf-8", content=_PAGE),
    "/docs/start.js": _File("text/javascript; charset=utf-8", content=_START),
    "/docs/swagger-ui-bundle.js": _File("text/javascript; charset=utf-8", "swagger-ui-bundle.js"),
    "/docs/swagger-ui.css": _File("text/css; charset=utf-8", "swagger-ui.css"),
    "/docs/favicon-32x32.png": _File("image/png", "favicon-32x32.png"),
}


@cache
def _read(name: str) -> bytes:
    return (files("gyoza.server") / "swagger_ui" / name).read_bytes()


class DocsPage:
    """ASGI middleware: answers for the documentation, which needs no key and holds no data.

    Args:
        app: Answers all else.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        path: str = scope.get("path", "")
        found = _FILES.get(path)
        if scope["type"] != "http" or scope["method"] != "GET" or not (found or path == "/"):
            await self._app(scope, receive, send)
            return
        if found is None:
            answer: Response = RedirectResponse("docs")
        else:
            content = found.content or await trio.to_thread.run_sync(_read, found.name)
            headers = {"content-security-policy": PAGE_POLICY}
            answer = Response(content, media_type=found.kind, headers=headers)
        if {b"content-length", b"transfer-encoding"} & {
            name.lower() for name, _ in scope["headers"]
        }:
            answer.headers["connection"] = "close"  # nobody waits for a body that says nothing
        else:
            await receive()  # the end of the request, so that another one may follow
        await answer(scope, receive, send)


class HeadAsGet:
    """ASGI middleware: answers HEAD with the head of what GET would answer.

    Args:
        app: Knows GET only.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer a GET, and end it as soon as the head is there."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        with trio.CancelScope() as getting:

            async def send_head(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    getting.cancel()  # a log that is followed has no end

            await self._app({**scope, "method": "GET"}, receive, send_head)
