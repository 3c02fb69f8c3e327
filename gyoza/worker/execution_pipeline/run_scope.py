"""What the built-in steps of one run work with, and how long it lives.

`open_run` is the run's nursery: reports and logs live in it, outside the run's cancel scope, so
that the last words of a cancelled container still find their way.
"""

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from gyoza.client import AsyncGyozaClient
from gyoza.models import EventType, FailureReason
from gyoza.worker.containers.engine import ContainerEngine
from gyoza.worker.containers.gpus import GpuPool
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.containers.pulls import SharedPulls
from gyoza.worker.errors import LeaseLost, WorkerError
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.logs.spool import LogSpool
from gyoza.worker.logs.tail import last_lines
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.reports.logs import LogShipper
from gyoza.worker.settings import WorkerSettings

KEY = "gyoza.run_scope"
"""Where `ExecutionContext.extras` keeps the scope."""

FLUSH_S = 10.0
"""Seconds the end of a log may take to reach the server before the run's end is reported."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Toolbox:
    """What all runs of one worker share.

    Attributes:
        files: Limits the threads that read and write run files.
    """

    settings: WorkerSettings
    engine: ContainerEngine
    pulls: SharedPulls
    gpus: GpuPool
    client: AsyncGyozaClient
    files: trio.CapacityLimiter


@dataclass(frozen=True)
class RunScope:
    """What the steps of one run work with, found in the context's `extras`.

    Attributes:
        tasks: The run's nursery; ends after the run's cancel scope.
    """

    tools: Toolbox
    identity: ContainerIdentity
    reporter: EventReporter
    spool: LogSpool
    shipper: LogShipper
    tasks: trio.Nursery

    async def report_end(
        self, kind: EventType, msg: str, payload: dict[str, Any], summary: dict[str, Any]
    ) -> None:
        """Report how the attempt ended, after the end of its log as far as `FLUSH_S` allows."""
        with trio.move_on_after(FLUSH_S):
            await self.shipper.finish()
        await self.reporter.confirm(kind, msg, payload, summary)


def scope_of(ctx: ExecutionContext) -> RunScope:
    """Return the scope the context runs in.

    Raises:
        RuntimeError: If a built-in step is called without one.
    """
    scope = ctx.extras.get(KEY)
    if not isinstance(scope, RunScope):
        raise RuntimeError(
            "This step needs a worker around it; call `Pipeline([...]).run(ctx)` instead."
        )
    return scope


@asynccontextmanager
async def open_run(
    ctx: ExecutionContext, tools: Toolbox, reporter: EventReporter, *, ship_logs: bool = True
) -> AsyncGenerator[RunScope]:
    """Give the context a scope for as long as the block lasts, and flush its reports after.

    Without `ship_logs` the log stays in the context alone.
    """
    identity = reporter.identity
    work_dir = tools.settings.work_dir
    spool = await trio.to_thread.run_sync(LogSpool, work_dir, limiter=tools.files)
    shipper = LogShipper(tools.client, identity, spool, tools.files)
    try:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(reporter.serve)
            tasks.start_soon(shipper.serve if ship_logs else shipper.discard)
            scope = ctx.extras[KEY] = RunScope(tools, identity, reporter, spool, shipper, tasks)
            yield scope
            with trio.move_on_after(FLUSH_S):
                await shipper.finish()
            tasks.cancel_scope.cancel()
    finally:
        ctx.extras.pop(KEY, None)
        spool.close()


async def report_failure(ctx: ExecutionContext, error: Exception) -> None:
    """Mark the run FAILED on the server, unless its end is known there or not ours to tell.

    An error that a cancel brought about is none: cancelled is not failed.
    """
    scope = ctx.extras.get(KEY)
    cancelled = trio.current_effective_deadline() == -math.inf
    if cancelled or not isinstance(scope, RunScope) or scope.reporter.settled:
        return
    known = isinstance(error, WorkerError)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    reason = error.reason if known else FailureReason.INTERNAL
    await report_failed(ctx, reason, message)


async def report_failed(ctx: ExecutionContext, reason: FailureReason, message: str) -> None:
    """Report FAILED with its reason, one sentence and the last log lines; LeaseLost is fine."""
    payload = {
        "reason": reason,
        "error_message": message,
        "exit_code": ctx.exit_code,
        "log_tail": last_lines(ctx.logs),
    }
    try:
        await scope_of(ctx).report_end(EventType.FAILED, message, payload, summary_of(ctx))
    except LeaseLost as lost:
        logger.info("Run %s is not this worker's any more: %s", ctx.oprun_id, lost)


def summary_of(ctx: ExecutionContext) -> dict[str, Any]:
    """Return what is known for the run's `ExecutionSummary`."""
    return {"exit_code": ctx.exit_code, "gpu_ids": ctx.extras.get("gpu_ids", [])}
