"""One op run in this worker: claim, pipeline, report, clean-up, slot free."""

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from gyoza.models import EventType, OpRun
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.containers.stop import end_containers
from gyoza.worker.errors import (
    EngineError,
    EngineFails,
    LeaseLost,
    OpDirNotRemoved,
    RunInterrupted,
    WorkerError,
    WorkerLacks,
)
from gyoza.worker.execution_pipeline.op_container import ENGINE_S, note_stopping
from gyoza.worker.execution_pipeline.run_scope import (
    FLUSH_S,
    RunScope,
    grace_of,
    open_run,
)
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.lacks import Thread, lack_of, outlast
from gyoza.worker.op_io.op_dir import remove_op_dir
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.reports.report import Report
from gyoza.worker.run_record import RunRecord, run_dir
from gyoza.worker.runner.active_runs import REPORT_S, ActiveRun, CancelReason
from gyoza.worker.runner.giving_back import give_back
from gyoza.worker.runner.worker import Worker

CLEANUP_S = 60.0
"""Seconds that removing the run directory may take."""

GIVE_BACK_S = 600.0
"""Seconds that giving a run back may take, in which its lease goes on; then that ends."""

_STOPPED: dict[CancelReason | None, str] = {
    CancelReason.SERVER_CANCELLED: "was cancelled",
    CancelReason.LEASE_LOST: "was given to another worker",
}
"""What became of a run that was stopped for a reason."""

logger = logging.getLogger(__name__)


async def run_op(active: ActiveRun, worker: Worker, record: RunRecord | None = None) -> None:
    """Execute a claimed run to its end; returns when its slot is free.

    The task is the run's lifetime, `active.scope` its cancel scope. Errors of the run end here:
    they are reported and logged, and no other run notices.

    Args:
        active: The run, with its slot.
        worker: This worker.
        record: What an earlier life of the worker has left of it; begun if not given.
    """
    try:
        await worker.active.wait_for_turn(active)
        if record := record or await _begin_record(active, worker):
            async with _recorded(active, worker, record) as (ctx, scope):
                await _execute(active, worker, ctx, scope)
                await _ship_rest_of_log(active, scope)
    except* Exception:
        logger.exception("Run %s ended in a way that nobody foresaw.", active.run.id)
    finally:
        worker.active.remove(active)
        if active.not_ours:
            worker.beat_now.set()  # the server may give it to this worker once more
        logger.info("Run %s %s.", active.run.id, _outcome_of(active))


def _outcome_of(active: ActiveRun) -> str:
    """Return what became of a run that leaves the worker, as the rest of a sentence."""
    end = active.record.end if active.record else None
    if end is None:
        return _STOPPED.get(active.reason, "was given back")
    report = Report.from_fact(end)
    duration_ms = (report.summary or {}).get("duration_ms")
    took = f" in {duration_ms / 1000:.1f} s" if duration_ms else ""
    if report.type is EventType.COMPLETED:
        return f"completed{took}"
    return f"failed{took}: {(report.payload or {}).get('reason')}"


def identity_of(run: OpRun, worker: Worker) -> ContainerIdentity:
    """Return the identity of the attempt claimed; a server that counts none has only first ones."""
    attempt = max(run.current_attempt, 1)
    return ContainerIdentity(worker.settings.worker_id, run.id, attempt, worker.server)


async def _begin_record(active: ActiveRun, worker: Worker) -> RunRecord | None:
    """Make the run directory; a run that cannot have one is given back."""
    identity, files = identity_of(active.run, worker), worker.tools.files
    directory = _run_dir(active, worker)
    try:
        return await Thread(RunRecord.create, directory, active.run, limiter=files).run()
    except (OSError, OpDirNotRemoved, MemoryError, RuntimeError) as error:
        lacks = WorkerLacks(lack_of(error) or f"a directory for it ({error})")
    await _interrupt(active, worker, identity, lacks)
    with trio.move_on_after(CLEANUP_S, shield=True):
        await remove_run_dir(directory, worker.tools.removals)
    return None


@asynccontextmanager
async def _recorded(
    active: ActiveRun, worker: Worker, record: RunRecord
) -> AsyncGenerator[tuple[ExecutionContext, RunScope]]:
    """Open the run with its record, and remove the run directory unless something is owed."""
    identity = identity_of(active.run, worker)
    ctx = _context_of(active)
    reporter = EventReporter(worker.client, identity, record, worker.tools.files, worker.contact)
    active.record, active.reporter = record, reporter
    if active.not_ours:
        reporter.lost.set()
    scope: RunScope | None = None
    owes_log = False
    try:
        async with open_run(ctx, worker.tools, record, reporter) as scope:
            active.work = scope
            scope.tasks.start_soon(_trip_when_lost, active, reporter)
            yield ctx, scope
            owes_log = not scope.shipper.closed.is_set()
    finally:
        record.close()
        if scope is None or scope.owes_report or scope.container_left or owes_log:
            logger.warning("Run %s: the next start deals with what is left.", active.run.id)
        else:
            with trio.move_on_after(CLEANUP_S, shield=True):
                await remove_run_dir(_run_dir(active, worker), worker.tools.removals)


def _run_dir(active: ActiveRun, worker: Worker) -> Path:
    attempt = identity_of(active.run, worker).attempt
    return run_dir(worker.settings.work_dir, active.run.id, attempt)


async def remove_run_dir(directory: Path, limiter: trio.CapacityLimiter) -> None:
    """Remove a run directory as soon as the worker has what it takes for that.

    Whoever calls this bounds it. What cannot be removed is said and left.
    """
    thread = Thread(remove_op_dir, directory, limiter=limiter)
    try:
        await outlast(thread.run, f"The removal of {directory}")
    except OpDirNotRemoved as error:
        logger.warning("%s", error)


async def _trip_when_lost(active: ActiveRun, reporter: EventReporter) -> None:
    await reporter.lost.wait()
    active.trip(CancelReason.LEASE_LOST)


async def _execute(
    active: ActiveRun, worker: Worker, ctx: ExecutionContext, scope: RunScope
) -> None:
    interrupted: RunInterrupted | None = None
    try:
        with active.scope:
            if scope.record.end:  # nothing is left but to tell
                await scope.reporter.confirm_recorded_end()
            else:
                await worker.pipeline(ctx)
                await scope.start_confirmed()  # by a pipeline that had nothing to wait for it
    except LeaseLost as lost:
        logger.info("Run %s is not this worker's any more: %s", active.run.id, lost)
    except RunInterrupted as error:
        interrupted = error
    except WorkerError as error:
        logger.warning("Run %s failed: %s", active.run.id, error)
    except Exception:
        logger.exception("Run %s failed.", active.run.id)
    finally:
        with trio.move_on_after(grace_of(ctx) + ENGINE_S, shield=True):
            await _leave_nothing_behind(worker, ctx, scope)
        wanted = not active.finished and not scope.reporter.lost.is_set()
        reason = _reason_to_stop(active) if wanted else None
        if reason:
            with trio.move_on_after(REPORT_S, shield=True):
                await give_back(worker.tools, scope.identity, reason)
    if interrupted and wanted and not reason:
        await _interrupt(active, worker, scope.identity, interrupted)
    if scope.begun and not isinstance(interrupted, WorkerLacks | EngineFails):
        worker.shortage.end()
        worker.engine_trouble.end()


def _reason_to_stop(active: ActiveRun) -> CancelReason | None:
    """Return why the run was stopped with the worker, if it was.

    By a signal, the fence, or because the nursery around all is cancelled.
    """
    if active.reason in (CancelReason.SHUTDOWN, CancelReason.FENCED):
        return active.reason
    cancelled = trio.current_effective_deadline() == -math.inf
    return CancelReason.SHUTDOWN if cancelled else None


async def _interrupt(
    active: ActiveRun, worker: Worker, identity: ContainerIdentity, interrupted: RunInterrupted
) -> None:
    """Give a run back that cannot go on here, also to a server that is away for a while."""
    logger.warning("Run %s is given back: %s", identity.run_id, interrupted)
    if isinstance(interrupted, WorkerLacks):
        worker.shortage.meet()
    if isinstance(interrupted, EngineFails):
        worker.engine_trouble.meet()
    with trio.move_on_after(GIVE_BACK_S):
        async with _until_leaving(active, REPORT_S):
            await give_back(worker.tools, identity, interrupted.cause)


async def _leave_nothing_behind(worker: Worker, ctx: ExecutionContext, scope: RunScope) -> None:
    """Remove the container of an earlier life that the pipeline has not seen.

    It was stopped too early for that, or the container had exited and only its removal was left.
    """
    if scope.record.fresh:
        return
    scope.container_left = True
    try:
        note = partial(note_stopping, scope)
        await end_containers(worker.tools.engine, scope.identity.key, grace_of(ctx), note)
        scope.container_left = False
    except EngineError as error:
        logger.error("The container %s stays: %s", scope.identity.name, error)


async def _ship_rest_of_log(active: ActiveRun, scope: RunScope) -> None:
    """Wait until the server has the whole log and knows it, however long it is away."""
    async with _until_leaving(active, FLUSH_S):
        await scope.shipper.finish()
        await scope.shipper.closed.wait()


@asynccontextmanager
async def _until_leaving(active: ActiveRun, patience_s: float) -> AsyncGenerator[None]:
    """Cancel the block that many seconds after the worker is told to leave."""

    async def hurry() -> None:
        await active.leaving.wait()
        await trio.sleep(patience_s)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hurry)
        yield
        nursery.cancel_scope.cancel()


def _context_of(active: ActiveRun) -> ExecutionContext:
    run = active.run
    constraints = {k: v for k, v in run.constraints.to_dict().items() if v is not None}
    return ExecutionContext(
        oprun_id=run.id,
        image=run.image,
        constraints=constraints,
        inputs=run.inputs,
        env_vars=dict(run.env_vars),
        extras={"command": run.command, "timeout_s": run.timeout_s, "grace_s": run.grace_s},
    )
