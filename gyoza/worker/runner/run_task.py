"""One op run in this worker: claim, pipeline, report, clean-up, slot free."""

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from gyoza.client import ApiError, AsyncGyozaClient, ClientError
from gyoza.models import EventType, OpRun
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.containers.stop import end_containers
from gyoza.worker.errors import (
    EngineError,
    LeaseLost,
    OpDirNotRemoved,
    PolicyRefused,
    RunInterrupted,
    WorkDirUnusable,
    WorkerError,
)
from gyoza.worker.execution_pipeline.op_container import ENGINE_S
from gyoza.worker.execution_pipeline.run_scope import (
    FLUSH_S,
    RunScope,
    grace_of,
    open_run,
)
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.op_io.op_dir import remove_op_dir
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.run_record import RunRecord, run_dir
from gyoza.worker.runner.active_runs import REPORT_S, ActiveRun, CancelReason
from gyoza.worker.runner.worker import Worker

CLEANUP_S = 60.0
"""Seconds that removing the run directory may take."""

UNUSABLE_S = 10.0
"""Seconds without the slot of a run that could have no directory."""

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
        async with _recorded(active, worker, record) as (ctx, scope):
            await _execute(active, worker, ctx, scope)
            await _ship_rest_of_log(active, scope)
    except* WorkDirUnusable as errors:
        logger.error("%s", errors.exceptions[0])
    except* Exception:
        logger.exception("Run %s ended in a way that nobody foresaw.", active.run.id)
    finally:
        worker.active.remove(active)
        if active.not_ours:
            worker.beat_now.set()  # the server may give it to this worker once more
        logger.info("Run %s is done here.", active.run.id)


def identity_of(run: OpRun, worker: Worker) -> ContainerIdentity:
    """Return the identity of the attempt claimed; a server that counts none has only first ones."""
    attempt = max(run.current_attempt, 1)
    return ContainerIdentity(worker.settings.worker_id, run.id, attempt, worker.server)


@asynccontextmanager
async def _recorded(
    active: ActiveRun, worker: Worker, record: RunRecord | None
) -> AsyncGenerator[tuple[ExecutionContext, RunScope]]:
    """Open the run with its record, and remove the run directory unless something is owed."""
    identity = identity_of(active.run, worker)
    directory = run_dir(worker.settings.work_dir, identity.run_id, identity.attempt)
    files = worker.tools.files
    record = record or await _begin_record(directory, active, worker)
    ctx = _context_of(active)
    reporter = EventReporter(worker.client, identity, record, files)
    active.record, active.reporter = record, reporter
    if active.not_ours:
        reporter.lost.set()
    scope: RunScope | None = None
    try:
        async with open_run(ctx, worker.tools, record, reporter) as scope:
            scope.tasks.start_soon(_trip_when_lost, active, reporter)
            yield ctx, scope
    finally:
        record.close()
        if scope is None or scope.owes_report or scope.container_left:
            logger.warning("Run %s: the next start deals with what is left.", active.run.id)
        else:
            with trio.move_on_after(CLEANUP_S, shield=True):
                await remove_run_dir(directory, worker.tools.removals)


async def _begin_record(directory: Path, active: ActiveRun, worker: Worker) -> RunRecord:
    """Make the run directory; a run that cannot have one is given back.

    Raises:
        WorkDirUnusable: After a while in which the slot is not used again.
    """
    create = partial(RunRecord.create, directory, active.run)
    try:
        return await trio.to_thread.run_sync(create, limiter=worker.tools.files)
    except (OSError, OpDirNotRemoved) as error:
        await give_back(worker.client, identity_of(active.run, worker), "WORK_DIR")
        with trio.move_on_after(UNUSABLE_S):
            await active.leaving.wait()
        raise WorkDirUnusable(
            f"Run {active.run.id} is given back, {directory} cannot be made: {error}"
        ) from error


async def remove_run_dir(directory: Path, limiter: trio.CapacityLimiter) -> None:
    """See `clear_run_dir`; in a thread."""
    await trio.to_thread.run_sync(clear_run_dir, directory, limiter=limiter)


def clear_run_dir(directory: Path) -> None:
    """Remove a run directory; what cannot be removed is said and left."""
    try:
        remove_op_dir(directory)
    except OpDirNotRemoved as error:
        logger.warning("%s", error)


async def _trip_when_lost(active: ActiveRun, reporter: EventReporter) -> None:
    await reporter.lost.wait()
    active.trip(CancelReason.LEASE_LOST)


async def _execute(
    active: ActiveRun, worker: Worker, ctx: ExecutionContext, scope: RunScope
) -> None:
    cause: str | None = None
    try:
        with active.scope:
            if scope.record.end:  # nothing is left but to tell
                await scope.reporter.confirm_recorded_end()
            else:
                await worker.pipeline(ctx)
                await scope.start_confirmed()  # by a pipeline that had nothing to wait for it
    except LeaseLost as lost:
        logger.info("Run %s is not this worker's any more: %s", active.run.id, lost)
    except RunInterrupted as interrupted:
        logger.warning("Run %s is given back: %s", active.run.id, interrupted)
        cause = interrupted.cause
    except WorkerError as error:
        logger.warning("Run %s failed: %s", active.run.id, error)
    except Exception:
        logger.exception("Run %s failed.", active.run.id)
    finally:
        # Stopped with the worker: by a signal, the fence, or because the nursery is cancelled.
        if active.reason in (CancelReason.SHUTDOWN, CancelReason.FENCED):
            cause = active.reason
        elif trio.current_effective_deadline() == -math.inf:
            cause = CancelReason.SHUTDOWN
        with trio.move_on_after(grace_of(ctx) + ENGINE_S, shield=True):
            await _leave_nothing_behind(worker, ctx, scope)
        if cause and not active.finished and not scope.reporter.lost.is_set():
            with trio.move_on_after(REPORT_S, shield=True):
                await give_back(worker.client, scope.identity, cause)


async def _leave_nothing_behind(worker: Worker, ctx: ExecutionContext, scope: RunScope) -> None:
    """Remove the container of an earlier life that the pipeline has not seen.

    It was stopped too early for that, or the container had exited and only its removal was left.
    """
    if scope.record.fresh:
        return
    scope.container_left = True
    try:
        await end_containers(worker.tools.engine, scope.identity.key, grace_of(ctx))
        scope.container_left = False
    except EngineError as error:
        logger.error("The container %s stays: %s", scope.identity.name, error)


async def _ship_rest_of_log(active: ActiveRun, scope: RunScope) -> None:
    """Wait until the server has the log, however long it is away, but for the worker to leave."""

    async def hurry() -> None:
        await active.leaving.wait()
        await trio.sleep(FLUSH_S)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hurry)
        await scope.shipper.finish()
        nursery.cancel_scope.cancel()


async def give_back(client: AsyncGyozaClient, identity: ContainerIdentity, reason: str) -> None:
    """Release a run to the server; one that does not take it gets the run when its lease ends."""
    try:
        await client.release_run(
            identity.run_id,
            worker_id=identity.worker_id,
            attempt=identity.attempt,
            reason=reason,
        )
    except (ApiError, ClientError) as error:
        logger.info("Run %s was not given back: %s", identity.run_id, error)


async def refuse(
    client: AsyncGyozaClient, identity: ContainerIdentity, refusal: PolicyRefused
) -> None:
    """Report a run FAILED that is not begun, since this worker does not allow it."""
    logger.warning("Run %s is refused: %s", identity.run_id, refusal)
    payload = {"reason": refusal.reason, "error_message": str(refusal), "exit_code": None}
    try:
        await client.add_event(
            identity.run_id,
            EventType.FAILED,
            str(refusal),
            payload,
            worker_id=identity.worker_id,
            attempt=identity.attempt,
            seq=0,
        )
    except (ApiError, ClientError) as error:
        logger.info("Run %s: its refusal was not taken: %s", identity.run_id, error)


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
