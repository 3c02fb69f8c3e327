"""Logs of runs: appended in chunks, read whole or followed live."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Send

from gyoza.server.errors import Malformed
from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.answers import REFUSALS, LogOffset, answers
from gyoza.server.routes.bodies import LogBody
from gyoza.server.routes.fields import MAX_INT, Id
from gyoza.server.routes.parameters import RunId
from gyoza.server.service import Service, TheService
from gyoza.server.store import logs
from gyoza.server.wakeups import run_key

Offset = Annotated[int, Query(ge=0, le=MAX_INT, description="Bytes of the log before this.")]


class LogResponse(StreamingResponse):
    """Text as it comes; ends with its reader."""

    media_type = "text/plain"

    def __init__(self, pages: AsyncGenerator[bytes, None]) -> None:
        super().__init__(pages)
        self._pages = pages

    async def stream_response(self, send: Send) -> None:
        """Send the pages, and let go of them too when the reader leaves in the middle."""
        async with aclosing(self._pages):
            await super().stream_response(send)


router = APIRouter(
    prefix="/runs/{run_id}/logs", tags=["logs"], route_class=PlainJsonRoute, responses=REFUSALS
)


@router.post(
    "",
    summary="Append log text; repeats are recognised by their offset",
    responses=answers(LogOffset),
)
async def append(run_id: RunId, body: LogBody, service: TheService) -> JSONResponse:
    """Store a chunk and answer with the offset of the next; 409 if text is missing before it."""
    data = body.data.encode()
    return await _append(service, run_id, body.offset, data, body.worker_id, body.attempt)


@router.put(
    "",
    summary="Append log text that is the body as it is: nothing has to be parsed",
    responses=answers(LogOffset),
    openapi_extra={
        "requestBody": {"content": {"text/plain": {"schema": {"type": "string"}}}, "required": True}
    },
)
async def put(
    run_id: RunId,
    request: Request,
    service: TheService,
    offset: Offset,
    worker_id: Annotated[Id | None, Query()] = None,
    attempt: Annotated[int | None, Query(ge=0, le=MAX_INT)] = None,
) -> JSONResponse:
    """Do the same as `append`, in fewer steps for much text."""
    data = await request.body()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"The text is not UTF-8: {error}.") from error
    return await _append(service, run_id, offset, data, worker_id, attempt)


async def _append(
    service: Service,
    run_id: str,
    offset: int,
    data: bytes,
    worker_id: str | None,
    attempt: int | None,
) -> JSONResponse:
    stored = await service.database.write(
        lambda tx: logs.append_log(tx, run_id, offset, data, worker_id, attempt)
    )
    return JSONResponse({"offset": stored})


@router.get(
    "",
    summary="The log of an attempt as text",
    response_class=Response,  # none of its own: a refusal is JSON, the log text
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def read(
    run_id: RunId,
    service: TheService,
    follow: Annotated[bool, Query(description="Go on until the attempt ends.")] = False,
    attempt: Annotated[int | None, Query(ge=1, le=MAX_INT)] = None,
    offset: Offset = 0,
) -> LogResponse:
    """Stream the text of the attempt named, else of the current one."""
    chosen = await service.database.read(lambda conn: logs.choose_attempt(conn, run_id, attempt))
    return LogResponse(_pages(service, run_id, chosen, offset, follow=follow))


async def _pages(
    service: Service, run_id: str, attempt: int, offset: int, *, follow: bool
) -> AsyncGenerator[bytes, None]:
    with service.wakeups.watch(run_key(run_id)) as news:
        while True:
            read = partial(logs.read_log, run_id=run_id, attempt=attempt, offset=offset)
            page = await service.database.read(read)
            if page.data:
                offset += len(page.data)
                yield page.data
            elif not follow or page.attempt_over or service.wakeups.closed:
                return
            else:
                await news.wait()
