"""Definitions: deploying, reading, and running them."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from gyoza.models import OpRun
from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.bodies import DefinitionBody, DefinitionRunBody
from gyoza.server.routes.parameters import IdempotencyKey
from gyoza.server.service import TheService
from gyoza.server.store import definitions
from gyoza.server.store.database import Tx
from gyoza.server.store.runs import create_run, find_by_key, load_run

router = APIRouter(prefix="/definitions", tags=["definitions"], route_class=PlainJsonRoute)


@router.post("", status_code=201, summary="Create or replace a version of a definition")
async def deploy(body: DefinitionBody, service: TheService) -> JSONResponse:
    """Store it as the latest; 201 for a new version, 200 for a replaced one."""
    definition = body.to_model()
    stored, new = await service.database.write(lambda tx: definitions.deploy(tx, definition))
    return JSONResponse(stored.to_dict(), 201 if new else 200)


@router.get("", summary="All versions of all definitions")
async def list_all(service: TheService) -> JSONResponse:
    """List them by name, each as it was deployed."""
    found = await service.database.read(definitions.list_definitions)
    return JSONResponse([definition.to_dict() for definition in found])


@router.get("/{name}", summary="One definition, the latest unless a version is named")
async def show(name: str, service: TheService, version: str | None = None) -> JSONResponse:
    """Show one definition."""

    def find(conn: Connection) -> dict[str, Any]:
        return definitions.find_definition(conn, name, version).to_dict()

    return JSONResponse(await service.database.read(find))


@router.post("/{name}/runs", status_code=201, summary="Create a run of a definition")
async def create(
    name: str,
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
    return JSONResponse(run.to_dict(), 201)
