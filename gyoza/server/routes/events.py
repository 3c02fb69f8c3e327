"""The events of runs: the feed of a topic, and those that a worker tells many at a time."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from gyoza.models import EventType
from gyoza.server.json_text import join_list, join_object
from gyoza.server.plain_json import PlainJsonRoute, body_of
from gyoza.server.routes.answers import (
    REFUSALS,
    FeedPage,
    StateAnswer,
    answers,
    write,
    written,
)
from gyoza.server.routes.bodies import EventBatchBody
from gyoza.server.routes.fields import Id
from gyoza.server.routes.parameters import After, Caller, RunId, WaitS, parse_cursor
from gyoza.server.service import TheService
from gyoza.server.store.event_batches import add_events
from gyoza.server.store.feed import read_feed
from gyoza.server.store.op_events import Report
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
) -> Response:
    """Show what follows the cursor, from the beginning without one."""
    start = 0 if after is None else parse_cursor(after)

    async def look() -> list[tuple[int, bytes]] | None:
        found = await service.database.read(lambda conn: read_feed(conn, topic, start, limit))
        return found or None

    found = await service.poll(request, [feed_key(topic)], wait_s, look) or []
    cursor = found[-1][0] if found else start
    items = join_list(item for _, item in found)
    return written(join_object({"cursor": str(cursor)}, {"data": items}))


@router.post(
    "/runs/{run_id}/events/batch",
    summary="Report events of an op, many at once; all are taken, or none",
    responses=answers(StateAnswer),
)
async def add_batch(
    run_id: RunId, body: EventBatchBody, request: Request, service: TheService, by: Caller
) -> Response:
    """Take them in their order, less those that the attempt has already by their `seq`."""
    payloads = await body_of(request).texts_of(*(event.payload for event in body.events))
    told = [
        Report(EventType(event.type), event.msg, payload, seq=event.seq)
        for event, payload in zip(body.events, payloads, strict=True)
    ]
    run = await service.database.write(
        lambda tx: add_events(tx, run_id, body.worker_id, body.attempt, told),
        actor=body.worker_id,
        author=by.author,
    )
    return written(write({"state": run.state}))
