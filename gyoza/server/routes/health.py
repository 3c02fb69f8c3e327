"""Whether the server is there, and whether it can do its work."""

import time

from fastapi import APIRouter

from gyoza import __version__
from gyoza.server.errors import NotReady
from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.answers import REFUSALS, Health, answers
from gyoza.server.service import Service, TheService

router = APIRouter(tags=["health"], route_class=PlainJsonRoute, responses=REFUSALS)

LATE = 3
"""Times that the leases may not have been looked at, before writes count as hanging."""


@router.get(
    "/health",
    summary="Whether the server and its database answer; needs no key",
    response_model=None,
    responses=answers(Health),
)
async def health_check(service: TheService) -> dict[str, str]:
    """Answer once the database did."""
    await service.database.ping()
    return {"status": "ok", "version": __version__}


@router.get(
    "/readyz",
    summary="Whether the server can do its work: whether writes go; needs no key",
    response_model=None,
    responses=answers(Health),
)
async def readiness(service: TheService) -> dict[str, str]:
    """Answer 503 with the reason while nothing can be written, or the server is about to end."""
    if why := _obstacle(service):
        raise NotReady(why)
    return {"status": "ok", "version": __version__}


def _obstacle(service: Service) -> str | None:
    if service.wakeups.closed:
        return "The server is shutting down."
    if error := service.database.write_error:
        return f"The database takes no writes ({error})."
    silent_s = time.monotonic() - service.database.written_at
    if silent_s > LATE * service.leases.every_s + 1:
        return f"The last write of the database ended {silent_s:.0f} s ago."
    return None
