"""Workers: heartbeats, claims, news about their runs, and drains."""

import logging

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from gyoza.server.errors import Forbidden
from gyoza.server.json_text import join_list, join_object
from gyoza.server.keyring import Key
from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.answers import (
    REFUSALS,
    ChangesAnswer,
    ClaimAnswer,
    HeartbeatAnswer,
    WorkerAnswer,
    answers,
    page_written,
    write,
    write_run,
    written,
)
from gyoza.server.routes.bodies import ClaimBody, HeartbeatBody
from gyoza.server.routes.parameters import (
    LISTED,
    After,
    Caller,
    ListLimit,
    StartingAfter,
    WaitS,
    WorkerId,
    parse_cursor,
)
from gyoza.server.service import Service, TheService
from gyoza.server.store import claims, workers
from gyoza.server.store.database import Tx
from gyoza.server.wakeups import room_key, worker_key

_log = logging.getLogger(__name__)

router = APIRouter(
    prefix="/workers", tags=["workers"], route_class=PlainJsonRoute, responses=REFUSALS
)


@router.post(
    "/heartbeat",
    summary="Register or renew a worker and the leases of its runs",
    responses=answers(HeartbeatAnswer),
)
async def heartbeat(body: HeartbeatBody, service: TheService, by: Caller) -> Response:
    """Answer with the lease, the state of each run listed, and whether to drain."""
    _check_tags(body, by)
    told = body.model_dump()
    claiming = service.is_claiming(body.worker_id)
    answer = await service.database.write(
        lambda tx: workers.beat(tx, told, service.lease_s, claiming=claiming),
        actor=body.worker_id,
    )
    return written(write(answer))


@router.post(
    "/{worker_id}/claim",
    summary="Claim runs that fit the worker; can wait for one",
    responses=answers(ClaimAnswer),
)
async def claim(
    worker_id: WorkerId, body: ClaimBody, request: Request, service: TheService, by: Caller
) -> Response:
    """Answer with runs assigned to the worker, those first whose answer it never got."""
    wish = claims.Wish(worker_id, body.max_runs, body.holding, service.clock(), by)

    async def look() -> claims.Claim | None:
        line.begin_look(place)
        found = await service.database.write(
            lambda tx: claims.claim(tx, wish, service.lease_s), actor=worker_id, author=by.author
        )
        line.end_look(place, nothing_left=found.nothing_left)
        return found if found.runs or found.draining else None

    line = service.wakeups.line
    with (
        service.claiming(worker_id),
        service.wakeups.watch(worker_key(worker_id), room_key(worker_id)) as news,
        line.stand(news) as place,
    ):
        found = await service.poll_news(request, news, body.wait_s, look)
    return written(await _write_claimed(service, found))


def _check_tags(body: HeartbeatBody, key: Key) -> None:
    """Do nothing if a worker may have its tags; those of its GPUs that it may not count for none.

    Raises:
        Forbidden: If it may not.
    """
    beyond = [tag for tag in body.tags if not key.allows_tag(tag)]
    if beyond:
        raise Forbidden(
            f"The key {key.name!a} does not allow the tag {beyond[0][:80]!a}; start the worker "
            "without it, or make a key that allows it."
        )


async def _write_claimed(service: Service, found: claims.Claim | None) -> bytes:
    """Return the runs as JSON, with their secrets; they are read once the claim is on disk."""
    if found is None or not found.runs:
        return write({"runs": []})

    def load(conn: Connection) -> bytes:
        claimed = claims.load_claimed(conn, found)
        return join_object({}, {"runs": join_list(write_run(run, secrets=True) for run in claimed)})

    return await service.database.read(load)


@router.get(
    "/{worker_id}/changes",
    summary="What others did to the worker's runs; can wait",
    responses=answers(ChangesAnswer),
)
async def read_changes(
    worker_id: WorkerId,
    request: Request,
    service: TheService,
    after: After = None,
    wait_s: WaitS = 0.0,
) -> Response:
    """Answer with states that others changed after the cursor; without one, with the cursor."""
    if after is None:
        cursor = await service.database.read(workers.last_change)
        return written(write({"states": {}, "cursor": str(cursor)}))
    told = parse_cursor(after)
    start = told

    def read(conn: Connection) -> tuple[dict[str, str], int]:
        nonlocal start
        start = workers.check_cursor(conn, start)
        return workers.changes_after(conn, worker_id, start)

    async def look() -> tuple[dict[str, str], int] | None:
        found = await service.database.read(read)
        return found if found[0] else None

    found = await service.poll(request, [worker_key(worker_id)], wait_s, look)
    states, cursor = found or ({}, start)
    return written(write({"states": states, "cursor": str(cursor)}))


@router.get(
    "",
    summary="All workers",
    responses=answers(list[WorkerAnswer]),
)
async def list_all(
    service: TheService, limit: ListLimit = LISTED, starting_after: StartingAfter = None
) -> Response:
    """Show the workers by id; a page, if they are many."""
    heard_since, after = service.heard_since, starting_after or ""
    found, following = await service.database.read(
        lambda conn: workers.show_workers(conn, heard_since, limit, after)
    )
    return page_written(join_list(found), following)


@router.get(
    "/{worker_id}",
    summary="One worker",
    responses=answers(WorkerAnswer),
)
async def show(worker_id: WorkerId, service: TheService) -> Response:
    """Show one worker."""
    heard_since = service.heard_since

    def find(conn: Connection) -> bytes:
        return write(workers.show_worker(conn, worker_id, heard_since))

    return written(await service.database.read(find))


@router.delete(
    "/{worker_id}",
    status_code=204,
    summary="Forget a worker that has ended or is lost; 409 for another one",
)
async def forget(worker_id: WorkerId, service: TheService, by: Caller) -> Response:
    """Forget it; its next heartbeat makes it known again."""
    heard_since = service.heard_since
    await service.database.write(lambda tx: workers.forget_worker(tx, worker_id, heard_since))
    _log.info("Worker %s was forgotten with key %s.", worker_id, by.id)
    return Response(status_code=204)


@router.post(
    "/{worker_id}/drain",
    summary="Give the worker no more runs; those it has go on",
    responses=answers(WorkerAnswer),
)
async def drain(worker_id: WorkerId, service: TheService) -> Response:
    """Drain it, until it is resumed."""
    return await _set_drain(service, worker_id, drain=True)


@router.post(
    "/{worker_id}/resume",
    summary="End a drain",
    responses=answers(WorkerAnswer),
)
async def resume(worker_id: WorkerId, service: TheService) -> Response:
    """Give it runs again."""
    return await _set_drain(service, worker_id, drain=False)


async def _set_drain(service: Service, worker_id: str, *, drain: bool) -> Response:
    heard_since = service.heard_since

    def change(tx: Tx) -> bytes:
        workers.set_drain(tx, worker_id, drain=drain)
        return write(workers.show_worker(tx.conn, worker_id, heard_since))

    return written(await service.database.write(change))
