"""The FastAPI application: routes, the door before them, and every error as one sentence."""

import logging
from collections.abc import Callable
from typing import Any, cast

import trio
from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from sqlalchemy.exc import DatabaseError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from gyoza import __version__
from gyoza.server.errors import Forbidden, RequestError
from gyoza.server.front import DocsPage, HeadAsGet
from gyoza.server.gate import Gate
from gyoza.server.keyring import Keyring
from gyoza.server.limits import Limits
from gyoza.server.routes import definitions, events, health, keys, logs, reports, runs, workers
from gyoza.server.service import ClientGone, Service
from gyoza.server.store.keys import workers_of_run
from gyoza.server.turns import HEARTBEAT

_log = logging.getLogger(__name__)


def create_app(service: Service, keyring: Keyring, limits: Limits | None = None) -> FastAPI:
    """Return the application that serves the whole HTTP contract.

    Args:
        service: What the routes work with.
        keyring: The keys, one of which each request must carry, but for the health check and
            documentation.
        limits: The caps and time-outs, if not the usual ones.
    """
    app = FastAPI(
        title="gyoza server",
        summary="Keeps op definitions and op runs, and hands runs to workers.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the body would be sent twice, and the key to where it points
    )
    app.state.service = service
    app.state.keyring = keyring

    async def workers_of(run_id: str) -> set[str] | None:
        return await service.database.read(lambda conn: workers_of_run(conn, run_id))

    app.add_middleware(_Described, path=app.openapi_url, describe=app.openapi)
    app.add_middleware(Gate, keyring=keyring, workers_of=workers_of, limits=limits or Limits())
    app.add_middleware(DocsPage)
    app.add_middleware(HeadAsGet)
    # The gate checks the key; this tells the documentation where it goes.
    documented = [Security(APIKeyHeader(name="X-API-Key", auto_error=False))]
    app.include_router(health.router)
    for resource in (definitions, logs, runs, reports, events, workers, keys):
        app.include_router(resource.router, dependencies=documented)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(DatabaseError, _database_failed)
    app.add_exception_handler(ClientGone, _client_gone)
    app.add_exception_handler(Exception, _internal_error)
    return app


class _Described:
    """ASGI middleware: has the OpenAPI document made in a thread before somebody gets it.

    FastAPI keeps it, but would make it in the event loop and let everybody wait for that.

    Args:
        app: What is behind it, and answers with the document.
        path: Where that is.
        describe: Makes it at the first call.
    """

    def __init__(self, app: ASGIApp, path: str | None, describe: Callable[[], object]) -> None:
        self._app = app
        self._path = path
        self._describe = describe
        self._making = trio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == self._path:
            async with self._making:  # whoever comes meanwhile waits for the same
                await trio.to_thread.run_sync(self._describe, abandon_on_cancel=True)
        await self._app(scope, receive, send)


def _answer(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


async def _request_error(request: Request, error: Exception) -> Response:
    if isinstance(error, Forbidden):
        _log.warning("Refused %s %a: %s", request.method, request.url.path[:80], error)
    return _answer(cast("RequestError", error).status, str(error))


async def _invalid(_request: Request, error: Exception) -> Response:
    return _answer(422, _sentence(cast("RequestValidationError", error).errors()[0]))


def _sentence(first: dict[str, Any]) -> str:
    """Say what is wrong with which field, in the words of the first complaint."""
    place: tuple[str | int, ...] = first["loc"]
    msg = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    if first["type"] == "json_invalid":
        return f"The body is not valid JSON: {first['ctx']['error']}."
    if place == ("body",) and isinstance(first["input"], bytes | None):
        return "The body must be a JSON object, sent with Content-Type: application/json."
    field = ".".join(str(part) for part in place[1:])
    return f"{field}: {msg}." if field else f"{msg[:1].upper()}{msg[1:]}."


async def _http_error(_request: Request, error: Exception) -> Response:
    failure = cast("HTTPException", error)
    sentences = {
        404: "There is nothing at this address; see /docs.",
        405: "This address does not take this method; see /docs.",
    }
    detail = sentences.get(failure.status_code, failure.detail)
    return JSONResponse({"detail": detail}, failure.status_code, failure.headers)


async def _database_failed(request: Request, error: Exception) -> Response:
    _log.error("The database failed: %s", cast("DatabaseError", error).orig)
    if request.url.path.endswith(HEARTBEAT):
        cast("Service", request.app.state.service).leases.note_missed()
    return _answer(503, "The database did not take this; try again, and see the server's log.")


async def _client_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)


async def _internal_error(_request: Request, _error: Exception) -> Response:
    return _answer(500, "The server failed at this request; its log says why.")
