"""Runs: creating, finding, changing, and everything that is reported about them."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from gyoza.models import OpRun, OpRunState
from gyoza.server.plain_json import PlainJsonRoute
from gyoza.server.routes.answers import (
    REFUSALS,
    AttemptAnswer,
    RunAnswer,
    RunPage,
    answers,
    show_run,
)
from gyoza.server.routes.bodies import EventBody, ReleaseBody, RunBody, RunChange
from gyoza.server.routes.parameters import IdempotencyKey, RunId, WaitS
from gyoza.server.service import Service, TheService
from gyoza.server.store import reports, runs
from gyoza.server.store.database import Tx
from gyoza.server.wakeups import end_key, run_key

router = APIRouter(prefix="/runs", tags=["runs"], route_class=PlainJsonRoute, responses=REFUSALS)


@router.post("", status_code=201, summary="Create an ad-hoc run", responses=answers(RunAnswer, 201))
async def create(
    body: RunBody, service: TheService, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Queue a run of any image."""
    asked = body.to_model()

    def make(tx: Tx) -> OpRun:
        return runs.load_run(tx.conn, runs.create_run(tx, asked, idempotency_key))

    run = await service.database.write(make)
    return JSONResponse(show_run(run), 201)


@router.get(
    "",
    summary="Runs, newest first; `inputs`, `outputs` and `events` are left empty here",
    responses=answers(RunPage),
)
async def list_some(
    service: TheService,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    starting_after: Annotated[str | None, Query(description="Id of a run; show older.")] = None,
    ending_before: Annotated[str | None, Query(description="Id of a run; show newer.")] = None,
    state: OpRunState | None = None,
    op_definition: str | None = None,
    image: str | None = None,
    topic: str | None = None,
) -> JSONResponse:
    """Show a page of runs without what may be large of them."""
    which = runs.RunFilter(state, op_definition, image, topic)

    def find(conn: Connection) -> dict[str, Any]:
        page, more = runs.list_runs(conn, which, limit, starting_after, ending_before)
        return {"data": [show_run(run) for run in page], "has_more": more}

    return JSONResponse(await service.database.read(find))


@router.get(
    "/{run_id}",
    summary="One run with its events; can wait for the next one, or for the run's end",
    responses=answers(RunAnswer),
)
async def show(
    run_id: RunId,
    request: Request,
    service: TheService,
    after_event: Annotated[
        int | None, Query(ge=-1, le=2**53, description="Wait for an event with a higher id.")
    ] = None,
    until_end: Annotated[bool, Query(description="Wait until the run has ended.")] = False,
    wait_s: WaitS = 0.0,
) -> JSONResponse:
    """Show a run, at once or when it has news; after `wait_s` as it is."""

    async def load() -> OpRun:
        return await service.database.read(lambda conn: runs.load_run(conn, run_id))

    async def look() -> OpRun | None:
        run = await load()
        seen = after_event is not None and len(run.events) <= after_event + 1
        early = until_end and not run.state.terminal
        return None if seen or early else run

    key = end_key(run_id) if until_end else run_key(run_id)
    run = await service.poll(request, [key], wait_s, look)
    return JSONResponse(show_run(run or await load()))


@router.get(
    "/{run_id}/attempts",
    summary="The attempts of a run, each with its own events",
    responses=answers(list[AttemptAnswer]),
)
async def show_attempts(run_id: RunId, service: TheService) -> JSONResponse:
    """Show all attempts, oldest first."""
    found = await service.database.read(lambda conn: runs.load_attempts(conn, run_id))
    return JSONResponse([attempt.to_dict() for attempt in found])


@router.patch(
    "/{run_id}",
    summary="Change state, outputs or priority of a run by hand",
    responses=answers(RunAnswer),
)
async def change(run_id: RunId, body: RunChange, service: TheService) -> JSONResponse:
    """Change what is given; 400 for a transition that does not exist."""
    return await _change(
        service,
        run_id,
        lambda tx: reports.change_run(tx, run_id, body.state, body.outputs, body.priority),
    )


@router.post(
    "/{run_id}/cancel",
    summary="Cancel a run; its worker stops it at once",
    responses=answers(RunAnswer),
)
async def cancel(run_id: RunId, service: TheService) -> JSONResponse:
    """Cancel it; again answers the same, 409 for a run that completed or failed."""
    return await _change(service, run_id, lambda tx: reports.cancel(tx, run_id))


@router.post(
    "/{run_id}/retry",
    summary="Queue a failed or cancelled run once more",
    responses=answers(RunAnswer),
)
async def retry(run_id: RunId, service: TheService) -> JSONResponse:
    """Queue it; 409 for a run in any other state."""
    return await _change(service, run_id, lambda tx: reports.retry(tx, run_id))


@router.post(
    "/{run_id}/events",
    summary="Report an event; STARTED and endings move the state",
    responses=answers(RunAnswer),
)
async def add_event(run_id: RunId, body: EventBody, service: TheService) -> JSONResponse:
    """Take an event; a repeat changes nothing, a stale or contradicting one is a 409.

    The `events` of the answer are those this request added: a run may have very many.
    """
    report = reports.Report(
        type=body.type,
        msg=body.msg,
        payload=body.payload,
        worker_id=body.worker_id,
        attempt=body.attempt,
        seq=body.seq,
        summary=body.summary.model_dump(exclude_none=True) if body.summary else {},
    )
    return await _report(
        service, run_id, lambda tx: reports.add_event(tx, run_id, report), body.worker_id
    )


@router.post(
    "/{run_id}/release",
    summary="Give a run back to the queue",
    responses=answers(RunAnswer),
)
async def release(run_id: RunId, body: ReleaseBody, service: TheService) -> JSONResponse:
    """Give it back; again changes nothing."""
    return await _report(
        service,
        run_id,
        lambda tx: reports.release(tx, run_id, body.worker_id, body.attempt, body.reason),
        body.worker_id,
    )


async def _change(service: Service, run_id: str, change: Callable[[Tx], None]) -> JSONResponse:
    """Answer with the changed run, all its events included."""

    def write(tx: Tx) -> OpRun:
        change(tx)
        return runs.load_run(tx.conn, run_id)

    run = await service.database.write(write)
    return JSONResponse(show_run(run))


async def _report(
    service: Service, run_id: str, change: Callable[[Tx], None], worker_id: str | None
) -> JSONResponse:
    """Answer with the run and the events that this report added to it."""

    def write(tx: Tx) -> OpRun:
        known: int = runs.find_row(tx.conn, run_id).event_count
        change(tx)
        return runs.load_run(tx.conn, run_id, known)

    run = await service.database.write(write, actor=worker_id)
    return JSONResponse(show_run(run))
