"""Definitions: deploying, reading, and running them."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from gyoza.models import OpRun
from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.answers import (
    REFUSALS,
    DefinitionAnswer,
    RunAnswer,
    answers,
    show_definition,
    show_run,
)
from gyoza.server.routes.bodies import DefinitionBody, DefinitionRunBody
from gyoza.server.routes.fields import Id
from gyoza.server.routes.parameters import DefinitionName, IdempotencyKey
from gyoza.server.service import TheService
from gyoza.server.store import definitions
from gyoza.server.store.database import Tx
from gyoza.server.store.runs import create_run, find_by_key, load_run

router = APIRouter(
    prefix="/definitions", tags=["definitions"], route_class=PlainJsonRoute, responses=REFUSALS
)


@router.post(
    "",
    status_code=201,
    summary="Create or replace a version of a definition",
    responses=answers(DefinitionAnswer, 201, 200),
)
async def deploy(body: DefinitionBody, service: TheService) -> JSONResponse:
    """Store it as the latest; 201 for a new version, 200 for a replaced one."""
    definition = body.to_model()
    stored, new = await service.database.write(lambda tx: definitions.deploy(tx, definition))
    return JSONResponse(show_definition(stored), 201 if new else 200)


@router.get(
    "",
    summary="All versions of all definitions",
    responses=answers(list[DefinitionAnswer]),
)
async def list_all(service: TheService) -> JSONResponse:
    """List them by name, each as it was deployed."""
    found = await service.database.read(definitions.list_definitions)
    return JSONResponse([show_definition(definition) for definition in found])


@router.get(
    "/{name}",
    summary="One definition, the latest unless a version is named",
    responses=answers(DefinitionAnswer),
)
async def show(
    name: DefinitionName, service: TheService, version: Id | None = None
) -> JSONResponse:
    """Show one definition."""

    def find(conn: Connection) -> dict[str, Any]:
        return show_definition(definitions.find_definition(conn, name, version))

    return JSONResponse(await service.database.read(find))


@router.post(
    "/{name}/runs",
    status_code=201,
    summary="Create a run of a definition",
    responses=answers(RunAnswer, 201),
)
async def create(
    name: DefinitionName,
    body: DefinitionRunBody,
    service: TheService,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Check the inputs, then queue a run that inherits the rest from the definition."""

    def make(tx: Tx) -> OpRun:
        # First of all: by now the definition may have another version that takes other inputs.
        if (known := find_by_key(tx.conn, idempotency_key)) is not None:
            return load_run(tx.conn, known)
        definition = definitions.find_definition(tx.conn, name, body.version)
        asked = definitions.run_of(definition, body.inputs, body.priority)
        return load_run(tx.conn, create_run(tx, asked, idempotency_key))

    run = await service.database.write(make)
    return JSONResponse(show_run(run), 201)
