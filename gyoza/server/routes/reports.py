"""Reports: what a worker, or a script by hand, tells of a run."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from gyoza.models import EventType
from gyoza.server.keyring import Key
from gyoza.server.plain_json import PlainJsonRoute, body_of
from gyoza.server.routes.answers import REFUSALS, BriefRun, RunAnswer, answers, write, written
from gyoza.server.routes.bodies import EventBody, ReleaseBody
from gyoza.server.routes.parameters import Caller, RunId
from gyoza.server.routes.runs import read_run
from gyoza.server.service import Service, TheService
from gyoza.server.store import reports, runs
from gyoza.server.store.database import Tx
from gyoza.server.store.op_events import Report
from gyoza.server.store.runs import RunRow
from gyoza.server.store.texts import Stored, stored

MINIMAL = "return=minimal"

Prefer = Annotated[
    str | None, Header(description=f"`{MINIMAL}` asks for the id, the state and the attempt only.")
]

router = APIRouter(prefix="/runs", tags=["runs"], route_class=PlainJsonRoute, responses=REFUSALS)


@router.post(
    "/{run_id}/events",
    summary="Report an event; STARTED and endings move the state",
    responses=answers(RunAnswer | BriefRun),
)
async def add_event(
    run_id: RunId,
    body: EventBody,
    request: Request,
    service: TheService,
    by: Caller,
    prefer: Prefer = None,
) -> Response:
    """Take an event; a repeat changes nothing, a stale or contradicting one is a 409.

    The `events` of the answer are those this request added: a run may have very many.
    """
    [text] = await body_of(request).texts_of(body.payload)
    # COMPLETED brings the outputs, which may be large; other payloads are told as they are.
    ends_well = body.type is EventType.COMPLETED
    given = stored(service.database, text) if ends_well else nullcontext(Stored(text, len(text)))
    async with given as payload:
        report = Report(
            type=body.type,
            msg=body.msg,
            payload=payload.column,
            worker_id=body.worker_id,
            attempt=body.attempt,
            seq=body.seq,
            summary=body.summary.model_dump(exclude_none=True) if body.summary else {},
            may_report=by.may_report,
        )
        return await _report(
            service,
            run_id,
            by,
            lambda tx: reports.add_event(tx, run_id, report),
            body.worker_id,
            prefer,
        )


@router.post(
    "/{run_id}/release",
    summary="Give a run back to the queue",
    responses=answers(RunAnswer | BriefRun),
)
async def release(
    run_id: RunId, body: ReleaseBody, service: TheService, by: Caller, prefer: Prefer = None
) -> Response:
    """Give it back; again changes nothing."""
    return await _report(
        service,
        run_id,
        by,
        lambda tx: reports.release(tx, run_id, body.worker_id, body.attempt, body.reason),
        body.worker_id,
        prefer,
    )


async def _report(
    service: Service,
    run_id: str,
    by: Key,
    change: Callable[[Tx], None],
    worker_id: str | None,
    prefer: str | None,
) -> Response:
    """Answer with the run and the events that this report added to it."""

    def write_down(tx: Tx) -> tuple[RunRow, int]:
        known: int = runs.find_row(tx.conn, run_id).event_count
        change(tx)
        return runs.find_row(tx.conn, run_id), known

    row, known = await service.database.write(write_down, actor=worker_id, author=by.author)
    if prefer != MINIMAL:
        return written(await read_run(service, row, known))
    brief = {"id": run_id, "state": row.state, "current_attempt": row.current_attempt}
    answer = written(write(brief))
    answer.headers["Preference-Applied"] = MINIMAL
    return answer
