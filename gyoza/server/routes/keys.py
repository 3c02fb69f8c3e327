"""Keys: made, listed and revoked by whoever has an admin's key."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field, model_validator

from gyoza.models.limits import RUNNING_OPS, WORKER_TAGS
from gyoza.models.record import format_time
from gyoza.server.keyring import Key, Keyring, Role, digest_of, make_key
from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.answers import REFUSALS, KeyAnswer, NewKeyAnswer, answers
from gyoza.server.routes.bodies import Strict
from gyoza.server.routes.fields import IS_NUMBER, Id, Tag, at_most
from gyoza.server.routes.parameters import Caller
from gyoza.server.service import TheService
from gyoza.server.store import keys

MAX_TTL_S = 100 * 365 * 24 * 3600.0

_log = logging.getLogger(__name__)

router = APIRouter(prefix="/keys", tags=["keys"], route_class=PlainJsonRoute, responses=REFUSALS)


class KeyBody(Strict):
    """A key to make."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    role: Role
    worker: Annotated[
        str,
        Field(
            max_length=200,
            description="Pattern of the ids of the workers that may use it; for role worker.",
        ),
    ] = ""
    tags: Annotated[list[Tag], at_most(WORKER_TAGS)] | None = Field(
        None, description="Tags that its workers may have, as patterns; null allows any."
    )
    max_runs: Annotated[int, Field(ge=1, le=RUNNING_OPS), IS_NUMBER] | None = Field(
        None, description="Runs that its workers may have at a time, together."
    )
    ttl_s: Annotated[float, Field(gt=0, le=MAX_TTL_S), IS_NUMBER] | None = Field(
        None, description="Seconds after which it expires; null for never."
    )

    @model_validator(mode="after")
    def _fields_go_with_the_role(self) -> Self:
        if (self.role == Role.WORKER) != bool(self.worker):
            raise ValueError("worker is required for role worker and not allowed for other roles")
        if self.role != Role.WORKER and not (self.tags is None and self.max_runs is None):
            raise ValueError("tags and max_runs are for keys of role worker")
        return self


def _show(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "worker": key.worker or None,
        "tags": key.tags,
        "max_runs": key.max_runs,
        "created_at": _told(key.created_at),
        "expires_at": _told(key.expires_at),
        "last_used_at": _told(key.last_used_at),
    }


def _told(moment: float | None) -> str | None:
    return None if moment is None else format_time(datetime.fromtimestamp(moment, UTC))


@router.post("", summary="Make a key", responses=answers(NewKeyAnswer, 201), status_code=201)
async def create(body: KeyBody, request: Request, service: TheService, by: Caller) -> JSONResponse:
    """Answer with the key itself, this once: the server keeps a digest of it alone."""
    key_id, secret = make_key()
    now = service.clock()
    key = Key(
        id=key_id,
        name=body.name,
        role=body.role,
        worker=body.worker,
        digest=digest_of(secret.encode()),
        created_at=now,
        tags=None if body.tags is None else tuple(body.tags),
        max_runs=body.max_runs,
        expires_at=None if body.ttl_s is None else now + body.ttl_s,
    )
    await service.database.write(lambda tx: keys.add_key(tx, key))
    _keyring(request).add(key)
    _log.info("Key %s (%a, role %s) was made with key %s.", key.id, key.name, key.role, by.id)
    return JSONResponse(_show(key) | {"key": secret}, 201)


@router.get("", summary="All keys but the server's own", responses=answers(list[KeyAnswer]))
async def list_all(request: Request, service: TheService) -> JSONResponse:
    """Show who has a key; the keys themselves nobody knows."""
    used = _keyring(request).used
    found = await service.database.read(keys.good_keys)
    shown = (replace(key, last_used_at=used.get(key.id, key.last_used_at)) for key in found)
    return JSONResponse([_show(key) for key in shown])


@router.delete("/{key_id}", summary="Revoke a key", responses=answers(list[KeyAnswer]))
async def revoke(key_id: Id, request: Request, service: TheService, by: Caller) -> JSONResponse:
    """Answer with the keys that are left; what the holder waits for or follows ends too."""
    await service.database.write(lambda tx: keys.revoke_key(tx, key_id, tx.now))
    _keyring(request).revoke(key_id)
    _log.info("Key %s was revoked with key %s.", key_id, by.id)
    return await list_all(request, service)


def _keyring(request: Request) -> Keyring:
    return request.app.state.keyring
