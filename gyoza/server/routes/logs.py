"""Logs of runs: appended in chunks, read whole or followed live."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from gyoza.server.errors import Malformed
from gyoza.server.plain_json import PlainJsonRoute, body_of
from gyoza.server.routes.answers import REFUSALS, LogOffset, answers
from gyoza.server.routes.bodies import LogBody
from gyoza.server.routes.fields import MAX_INT, Id
from gyoza.server.routes.log_stream import (
    AS_EVENTS,
    AS_TEXT,
    ATTEMPT,
    EVENTS,
    TEXT,
    LogAsked,
    LogResponse,
)
from gyoza.server.routes.parameters import RunId
from gyoza.server.service import Service, TheService
from gyoza.server.store import logs

BEFORE = "Bytes of the log before this."
Offset = Annotated[int, Query(ge=0, le=MAX_INT, description=BEFORE)]


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
    return await _append(
        service, run_id, body.offset, data, body.worker_id, body.attempt, final=body.final
    )


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
    final: Annotated[bool, Query(description="The log is whole with this text.")] = False,
) -> JSONResponse:
    """Do the same as `append`, in fewer steps for much text."""
    data = body_of(request).data
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"The text is not UTF-8: {error}.") from error
    return await _append(service, run_id, offset, data, worker_id, attempt, final=final)


async def _append(
    service: Service,
    run_id: str,
    offset: int,
    data: bytes,
    worker_id: str | None,
    attempt: int | None,
    *,
    final: bool,
) -> JSONResponse:
    stored = offset
    # One by one: a transaction of megabytes would keep other writes waiting.
    for at, piece in [*logs.pieces(data)] or [(0, data)]:
        append_piece = partial(
            logs.append_log,
            run_id=run_id,
            offset=offset + at,
            data=piece,
            worker_id=worker_id,
            attempt=attempt,
            final=final and at + len(piece) == len(data),
        )
        stored = await service.database.write(append_piece)
    return JSONResponse({"offset": stored})


@router.get(
    "",
    summary="The log of an attempt as text, or as a stream of server-sent events",
    response_class=Response,  # none of its own: a refusal is JSON, the log text
    responses={
        200: {
            "content": {kind: {"schema": {"type": "string"}} for kind in (TEXT, EVENTS)},
            "headers": {ATTEMPT: {"required": True, "schema": {"type": "integer", "minimum": 1}}},
        }
    },
)
async def read(
    run_id: RunId,
    request: Request,
    service: TheService,
    follow: Annotated[bool, Query(description="Go on until the attempt ends.")] = False,
    attempt: Annotated[int | None, Query(ge=1, le=MAX_INT)] = None,
    offset: Annotated[int | None, Query(ge=0, le=MAX_INT, description=BEFORE)] = None,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=MAX_INT, description="As `offset`, unless that is given.")
    ] = None,
) -> LogResponse:
    """Stream the text of the attempt named, else of the current one.

    If the attempt is over, but its worker has not said yet that this is all, the rest is waited
    for. To `Accept: text/event-stream` each piece of text comes as one JSON string, with the offset
    after it as its id; a comment comes after 15 s without any; and the last event is `end`, with
    `{"complete": true}`, or false if text is missing, because the attempt is `under_way` or for
    good. A stream without `end` was cut: ask again from its last id.
    """
    chosen = await service.database.read(lambda conn: logs.choose_attempt(conn, run_id, attempt))
    form = AS_EVENTS if EVENTS in request.headers.get("Accept", "") else AS_TEXT
    begin = last_event_id or 0 if offset is None else offset
    return LogResponse(service, form, LogAsked(run_id, chosen, begin, follow))
