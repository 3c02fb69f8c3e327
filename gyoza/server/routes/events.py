"""The event feed of a topic."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.answers import REFUSALS, FeedPage, answers
from gyoza.server.routes.fields import Id
from gyoza.server.routes.parameters import After, WaitS, parse_cursor
from gyoza.server.service import TheService
from gyoza.server.store.feed import read_feed
from gyoza.server.wakeups import feed_key

router = APIRouter(tags=["events"], route_class=PlainJsonRoute, responses=REFUSALS)


@router.get(
    "/events",
    summary="Events of all runs of a topic, in order; can wait for the next",
    responses=answers(FeedPage),
)
async def read(
    request: Request,
    service: TheService,
    topic: Id,
    after: After = None,
    wait_s: WaitS = 0.0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> JSONResponse:
    """Show what follows the cursor, from the beginning without one."""
    start = 0 if after is None else parse_cursor(after)

    async def look() -> list[dict[str, Any]] | None:
        found = await service.database.read(lambda conn: read_feed(conn, topic, start, limit))
        return found or None

    found = await service.poll(request, [feed_key(topic)], wait_s, look) or []
    return JSONResponse({"data": found, "cursor": found[-1]["cursor"] if found else str(start)})
