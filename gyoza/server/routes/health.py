"""Whether the server is there."""

from fastapi import APIRouter

from gyoza import __version__
from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.answers import REFUSALS, Health, answers
from gyoza.server.service import TheService

router = APIRouter(tags=["health"], route_class=PlainJsonRoute, responses=REFUSALS)


@router.get(
    "/health",
    summary="Whether the server and its database answer; needs no key",
    response_model=None,
    responses=answers(Health),
)
async def health_check(service: TheService) -> dict[str, str]:
    """Answer once the database did."""
    await service.database.read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar_one())
    return {"status": "ok", "version": __version__}
