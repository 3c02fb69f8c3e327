"""Definitions: deploying, reading, and running them."""

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
    write_definition,
    written,
)
from gyoza.server.routes.bodies import DefinitionBody, DefinitionRunBody
from gyoza.server.routes.fields import Id
from gyoza.server.routes.parameters import DefinitionName, IdempotencyKey
from gyoza.server.routes.runs import make_run, read_run
from gyoza.server.service import TheService
from gyoza.server.store import definitions
from gyoza.server.store.runs import RunRow, find_by_key, find_row

router = APIRouter(
    prefix="/definitions", tags=["definitions"], route_class=PlainJsonRoute, responses=REFUSALS
)


@router.post(
    "",
    status_code=201,
    summary="Create or replace a version of a definition",
    responses=answers(DefinitionAnswer, 201, 200),
)
async def deploy(body: DefinitionBody, service: TheService) -> Response:
    """Store it as the latest; 201 for a new version, 200 for a replaced one."""
    definition = body.to_model()
    stored, new = await service.database.write(lambda tx: definitions.deploy(tx, definition))
    return written(write_definition(stored), 201 if new else 200)


@router.get(
    "",
    summary="All versions of all definitions",
    responses=answers(list[DefinitionAnswer]),
)
async def list_all(service: TheService) -> Response:
    """List them by name, each as it was deployed."""

    def find(conn: Connection) -> bytes:
        return join_list(map(write_definition, definitions.list_definitions(conn)))

    return written(await service.database.read(find))


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
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Check the inputs, then queue a run that inherits the rest from the definition."""

    def find(conn: Connection) -> RunRow | OpDefinition:
        # The key first: by now the definition may have another version that takes other inputs.
        if (known := find_by_key(conn, idempotency_key)) is not None:
            return find_row(conn, known)
        return definitions.find_definition(conn, name, body.version)

    found = await service.database.read(find)
    if not isinstance(found, OpDefinition):
        return written(await read_run(service, found), 201)
    complete = definitions.complete_inputs(found, body.inputs)
    [inputs] = await body_of(request).texts_of(complete)
    asked = definitions.run_of(found, body.priority)
    return await make_run(service, asked, inputs, idempotency_key)
