"""One op run in this worker: claim, pipeline, report, clean-up, slot free."""

import logging
import math

import trio

from gyoza.client import ApiError, AsyncGyozaClient, ClientError
from gyoza.models import OpRun
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.errors import LeaseLost, WorkerError
from gyoza.worker.execution_pipeline.run_scope import open_run
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.runner.active_runs import ActiveRun, CancelReason
from gyoza.worker.runner.worker import Worker

RELEASE_S = 15.0
"""Seconds in which a run must be given back when the worker goes; its lease ends it otherwise."""

logger = logging.getLogger(__name__)


async def run_op(active: ActiveRun, worker: Worker) -> None:
    """Execute a claimed run to its end; returns when its slot is free.

    The task is the run's lifetime, `active.scope` its cancel scope. Errors of the run end here:
    they are reported and logged, and no other run notices.
    """
    run = active.run
    reporter = EventReporter(worker.client, identity_of(run, worker))
    ctx = _context_of(active)
    try:
        async with open_run(ctx, worker.tools, reporter):
            await _execute(active, worker, ctx, reporter)
    except* Exception:
        logger.exception("Run %s ended in a way that nobody foresaw.", run.id)
    finally:
        worker.active.remove(active)
        logger.info("Run %s is done here.", run.id)


def identity_of(run: OpRun, worker: Worker) -> ContainerIdentity:
    """Return the identity of the attempt claimed; a server that counts none has only first ones."""
    return ContainerIdentity(worker.settings.worker_id, run.id, max(run.current_attempt, 1))


async def _execute(
    active: ActiveRun, worker: Worker, ctx: ExecutionContext, reporter: EventReporter
) -> None:
    active.reporter = reporter
    try:
        with active.scope:
            await worker.pipeline(ctx)
    except LeaseLost as lost:
        logger.info("Run %s is not this worker's any more: %s", active.run.id, lost)
    except WorkerError as error:
        logger.warning("Run %s failed: %s", active.run.id, error)
    except Exception:
        logger.exception("Run %s failed.", active.run.id)
    finally:
        # Stopped with the worker, by a signal or because the nursery around it is cancelled.
        leaving = active.reason is CancelReason.SHUTDOWN or _cancelled()
        if leaving and not reporter.settled:
            with trio.move_on_after(RELEASE_S, shield=True):
                await give_back(worker.client, reporter.identity, CancelReason.SHUTDOWN)


def _cancelled() -> bool:
    return trio.current_effective_deadline() == -math.inf


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


def _context_of(active: ActiveRun) -> ExecutionContext:
    run = active.run
    constraints = {k: v for k, v in run.constraints.to_dict().items() if v is not None}
    return ExecutionContext(
        oprun_id=run.id,
        image=run.image,
        constraints=constraints,
        inputs=run.inputs,
        env_vars=dict(run.env_vars),
        extras={"command": run.command, "timeout_s": run.timeout_s},
    )
