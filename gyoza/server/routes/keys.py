"""Keys: made, listed and revoked by whoever has an admin's key."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field, model_validator

from gyoza.models.record import format_time
from gyoza.server.keyring import Key, Keyring, Role, digest_of, make_key
from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.answers import REFUSALS, KeyAnswer, NewKeyAnswer, answers
from gyoza.server.routes.bodies import Strict
from gyoza.server.routes.fields import Id
from gyoza.server.service import TheService
from gyoza.server.store import keys

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

    @model_validator(mode="after")
    def _worker_goes_with_its_role(self) -> Self:
        if (self.role == Role.WORKER) != bool(self.worker):
            raise ValueError("a key of role worker names its workers, and no other key does")
        return self


def _show(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "worker": key.worker or None,
        "created_at": format_time(datetime.fromtimestamp(key.created_at, UTC)),
    }


@router.post("", summary="Make a key", responses=answers(NewKeyAnswer, 201), status_code=201)
async def create(body: KeyBody, request: Request, service: TheService) -> JSONResponse:
    """Answer with the key itself, this once: the server keeps a digest of it alone."""
    key_id, secret = make_key()
    digest = digest_of(secret.encode())
    key = Key(key_id, body.name, body.role, body.worker, digest, service.clock())
    await service.database.write(lambda tx: keys.add_key(tx, key))
    _keyring(request).add(key)
    return JSONResponse(_show(key) | {"key": secret}, 201)


@router.get("", summary="All keys but the server's own", responses=answers(list[KeyAnswer]))
async def list_all(service: TheService) -> JSONResponse:
    """Show who has a key; the keys themselves nobody knows."""
    return JSONResponse([_show(key) for key in await service.database.read(keys.good_keys)])


@router.delete("/{key_id}", summary="Take a key no more", responses=answers(list[KeyAnswer]))
async def revoke(key_id: Id, request: Request, service: TheService) -> JSONResponse:
    """Answer with the keys that are left; what the holder waits for or follows ends too."""
    await service.database.write(lambda tx: keys.revoke_key(tx, key_id, tx.now))
    _keyring(request).revoke(key_id)
    return await list_all(service)


def _keyring(request: Request) -> Keyring:
    return request.app.state.keyring
