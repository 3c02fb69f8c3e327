"""Runs: creating, finding, changing, and everything that is reported about them."""

import logging
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from gyoza.models import OpRun, OpRunState
from gyoza.server.errors import BadRequest
from gyoza.server.json_text import JsonText, join_list, join_object
from gyoza.server.keyring import Key
from gyoza.server.plain_json import PlainJsonRoute, body_of
from gyoza.server.routes.answers import (
    REFUSALS,
    AttemptAnswer,
    RunAnswer,
    RunPage,
    answers,
    write,
    write_listed,
    write_run,
    written,
)
from gyoza.server.routes.bodies import RunBody, RunChange
from gyoza.server.routes.fields import Id
from gyoza.server.routes.parameters import Caller, IdempotencyKey, RunId, WaitS
from gyoza.server.service import Service, TheService
from gyoza.server.store import reports, runs
from gyoza.server.store.database import Tx
from gyoza.server.store.runs import RunRow
from gyoza.server.store.submission import Once, create_run
from gyoza.server.store.texts import stored
from gyoza.server.wakeups import end_key, run_key

_log = logging.getLogger(__name__)

router = APIRouter(prefix="/runs", tags=["runs"], route_class=PlainJsonRoute, responses=REFUSALS)


@router.post("", status_code=201, summary="Create an ad-hoc run", responses=answers(RunAnswer, 201))
async def create(
    body: RunBody,
    request: Request,
    service: TheService,
    by: Caller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue a run of any image."""
    asked = body.to_model()
    once = await once_of(request, by, idempotency_key)
    [inputs] = await body_of(request).texts_of(body.inputs)
    return await make_run(service, asked, inputs, by, once)


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
    id_prefix: Annotated[
        Id | None, Query(description="How the ids begin; in their order, and in one page.")
    ] = None,
) -> Response:
    """Show a page of runs without what may be large of them."""
    if id_prefix and (starting_after or ending_before):
        raise BadRequest("Runs found by id_prefix come in one page; ask for more of the id.")
    which = runs.RunFilter(state, op_definition, image, topic, id_prefix)

    def find(conn: Connection) -> bytes:
        page, more = runs.list_runs(conn, which, limit, starting_after, ending_before)
        return join_object({"has_more": more}, {"data": join_list(map(write_listed, page))})

    return written(await service.database.read(find))


@router.get(
    "/{run_id}",
    summary="One run with its events, or its news; can wait for them, or for the run's end",
    responses=answers(RunAnswer),
)
async def show(
    run_id: RunId,
    request: Request,
    service: TheService,
    after_event: Annotated[
        int | None,
        Query(
            ge=-1,
            le=2**53,
            description="Wait for an event with a higher id; only such events are in the answer, "
            "no `inputs`, and `outputs` only once the run has ended.",
        ),
    ] = None,
    until_end: Annotated[bool, Query(description="Wait until the run has ended.")] = False,
    wait_s: WaitS = 0.0,
) -> Response:
    """Show a run, at once or when it has news; after `wait_s` as it is."""

    async def load() -> RunRow:
        return await service.database.read(lambda conn: runs.find_row(conn, run_id))

    async def look() -> RunRow | None:
        row = await load()
        seen = after_event is not None and row.event_count <= after_event + 1
        early = until_end and not OpRunState(row.state).terminal
        return None if seen or early else row

    key = end_key(run_id) if until_end else run_key(run_id)
    row = await service.poll(request, [key], wait_s, look) or await load()
    if after_event is None:
        return written(await read_run(service, row))
    return written(await read_run(service, row, after_event + 1, news=True))


@router.get(
    "/{run_id}/attempts",
    summary="The attempts of a run; `inputs`, `outputs` and `events` are left empty here",
    responses=answers(list[AttemptAnswer]),
)
async def show_attempts(run_id: RunId, service: TheService) -> Response:
    """Show all attempts, oldest first."""

    def find(conn: Connection) -> bytes:
        return join_list(write(found.to_dict()) for found in runs.load_attempts(conn, run_id))

    return written(await service.database.read(find))


@router.patch(
    "/{run_id}",
    summary="Change state, outputs or priority of a run by hand",
    responses=answers(RunAnswer),
)
async def change(
    run_id: RunId, body: RunChange, request: Request, service: TheService, by: Caller
) -> Response:
    """Change what is given; 400 for a transition that does not exist."""
    [text] = await body_of(request).texts_of(body.outputs)
    async with stored(service.database, text) as outputs:
        column = None if body.outputs is None else outputs.column
        change = reports.Change(body.state, column, body.priority, may_report=by.may_report)
        return await _change(service, run_id, by, lambda tx: reports.change_run(tx, run_id, change))


@router.post(
    "/{run_id}/cancel",
    summary="Cancel a run; its worker stops it at once",
    responses=answers(RunAnswer),
)
async def cancel(run_id: RunId, service: TheService, by: Caller) -> Response:
    """Cancel it; again answers the same, 409 for a run that completed or failed."""
    return await _change(service, run_id, by, lambda tx: reports.cancel(tx, run_id))


@router.post(
    "/{run_id}/retry",
    summary="Queue a failed or cancelled run once more",
    responses=answers(RunAnswer),
)
async def retry(run_id: RunId, service: TheService, by: Caller) -> Response:
    """Queue it; 409 for a run in any other state."""
    return await _change(service, run_id, by, lambda tx: reports.retry(tx, run_id))


async def once_of(
    request: Request, by: Key, idempotency_key: str | None, definition: str | None = None
) -> Once | None:
    """Return what makes a request one that is done once; None without an Idempotency-Key."""
    if idempotency_key is None:
        return None
    digest = await body_of(request).digest(definition or "")
    operation = "run" if definition is None else "definition"
    return Once(f"{by.id} {operation} {idempotency_key}", digest)


async def make_run(
    service: Service, asked: OpRun, inputs: JsonText, by: Key, once: Once | None
) -> Response:
    """Create a run and answer with it."""
    async with stored(service.database, inputs) as kept:
        row = await service.database.write(
            lambda tx: create_run(tx, asked, kept, once), author=by.author
        )
    return written(await read_run(service, row), 201)


async def read_run(
    service: Service, row: RunRow, first_event: int = 0, *, news: bool = False
) -> bytes:
    """Return a run as JSON, as its row says.

    What may be large is read after the write, so that no other write waits for it.

    Args:
        service: What the routes work with.
        row: The run.
        first_event: The first of its events to be in the answer.
        news: Whether its inputs are known, and its outputs while it has not ended.
    """
    return await service.database.read(
        lambda conn: write_run(runs.load_run(conn, row, first_event, news=news))
    )


async def _change(service: Service, run_id: str, by: Key, change: Callable[[Tx], None]) -> Response:
    """Answer with the changed run, all its events included."""

    def write_down(tx: Tx) -> tuple[str, RunRow]:
        before = runs.find_row(tx.conn, run_id).state
        change(tx)
        return before, runs.find_row(tx.conn, run_id)

    before, row = await service.database.write(write_down, author=by.author)
    if row.state != before:
        _log.info("Run %s went from %s to %s with key %s.", run_id, before, row.state, by.id)
    return written(await read_run(service, row))
