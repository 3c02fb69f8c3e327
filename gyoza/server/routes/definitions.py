"""Definitions: deploying, reading, and running them."""

import logging

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from gyoza.models import OpDefinition
from gyoza.server.json_text import join_list
from gyoza.server.plain_json import PlainJsonRoute, body_of
from gyoza.server.routes.answers import (
    REFUSALS,
    DefinitionAnswer,
    RunAnswer,
    answers,
    page_written,
    write_definition,
    written,
)
from gyoza.server.routes.bodies import DefinitionBody, DefinitionRunBody
from gyoza.server.routes.fields import Id
from gyoza.server.routes.parameters import (
    LISTED,
    Caller,
    DefinitionName,
    IdempotencyKey,
    ListLimit,
    StartingAfter,
)
from gyoza.server.routes.runs import make_run, once_of, read_run
from gyoza.server.service import TheService
from gyoza.server.store import definitions
from gyoza.server.store.runs import RunRow
from gyoza.server.store.submission import find_made

_log = logging.getLogger(__name__)

router = APIRouter(
    prefix="/definitions", tags=["definitions"], route_class=PlainJsonRoute, responses=REFUSALS
)


@router.post(
    "",
    status_code=201,
    summary="Create or replace a version of a definition",
    responses=answers(DefinitionAnswer, 201, 200),
)
async def deploy(body: DefinitionBody, service: TheService, by: Caller) -> Response:
    """Store it as the latest; 201 for a new version, 200 for a replaced one."""
    definition = body.to_model()
    stored, new = await service.database.write(
        lambda tx: definitions.deploy(tx, definition), author=by.author
    )
    return written(write_definition(stored), 201 if new else 200)


@router.get(
    "",
    summary="All versions of all definitions",
    responses=answers(list[DefinitionAnswer]),
)
async def list_all(
    service: TheService, limit: ListLimit = LISTED, starting_after: StartingAfter = None
) -> Response:
    """List them by name, each as it was deployed; a page, if they are many or large."""
    after = None if starting_after is None else _place(starting_after)

    def find(conn: Connection) -> tuple[bytes, str | None]:
        page, more = definitions.list_definitions(conn, limit, after)
        following = f"{page[-1].id} {page[-1].version}" if more else None
        return join_list(map(write_definition, page)), following

    return page_written(*await service.database.read(find))


def _place(cursor: str) -> tuple[str, str]:
    name, _, version = cursor.partition(" ")
    return name, version


@router.get(
    "/{name}",
    summary="One definition, the latest unless a version is named",
    responses=answers(DefinitionAnswer),
)
async def show(name: DefinitionName, service: TheService, version: Id | None = None) -> Response:
    """Show one definition."""

    def find(conn: Connection) -> bytes:
        return write_definition(definitions.find_definition(conn, name, version))

    return written(await service.database.read(find))


@router.delete(
    "/{name}",
    status_code=204,
    summary="Delete a version of a definition, or all of them; its runs stay",
)
async def delete(
    name: DefinitionName, service: TheService, by: Caller, version: Id | None = None
) -> Response:
    """Delete it."""
    await service.database.write(lambda tx: definitions.delete_definition(tx, name, version))
    which = "all versions" if version is None else f"version {version}"
    _log.info("Definition %s, %s, was deleted with key %s.", name, which, by.id)
    return Response(status_code=204)


@router.post(
    "/{name}/runs",
    status_code=201,
    summary="Create a run of a definition",
    responses=answers(RunAnswer, 201),
)
async def create(
    name: DefinitionName,
    body: DefinitionRunBody,
    request: Request,
    service: TheService,
    by: Caller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Check the inputs, then queue a run that inherits the rest from the definition."""
    once = await once_of(request, by, idempotency_key, name)

    def find(conn: Connection) -> RunRow | OpDefinition:
        # By now the definition may have another version that takes other inputs.
        if once and (known := find_made(conn, once)):
            return known
        return definitions.find_definition(conn, name, body.version)

    found = await service.database.read(find)
    if not isinstance(found, OpDefinition):
        return written(await read_run(service, found), 201)
    complete = definitions.complete_inputs(found, body.inputs)
    [inputs] = await body_of(request).texts_of(complete)
    asked = definitions.run_of(found, body.priority)
    if body.event_delivery is not None:
        asked.event_delivery = body.event_delivery.to_model()
    return await make_run(service, asked, inputs, by, once)
