"""What the built-in steps of one run work with, and how long it lives.

`open_run` is the run's nursery: reports, logs and the container's output live in it, outside the
run's cancel scope, so that the last words of a cancelled container still find their way.
"""

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

from gyoza.client import AsyncGyozaClient
from gyoza.models import EventType, FailureReason
from gyoza.worker.containers.engine import ContainerEngine
from gyoza.worker.containers.gpus import GpuPool
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.containers.outages import through_outages
from gyoza.worker.containers.pulls import SharedPulls
from gyoza.worker.errors import (
    EngineError,
    EngineFailed,
    EngineFails,
    EngineUnavailable,
    LeaseLost,
    RunInterrupted,
    WorkerError,
    WorkerLacks,
)
from gyoza.worker.execution_pipeline.engine_faults import EngineFaults
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.lacks import Thread, lack_of, outlast
from gyoza.worker.logs.tail import last_lines
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.reports.logs import LogShipper
from gyoza.worker.reports.report import Report
from gyoza.worker.run_record import RunRecord
from gyoza.worker.server_contact import ServerContact
from gyoza.worker.settings import WorkerSettings

KEY = "gyoza.run_scope"
"""Where `ExecutionContext.extras` keeps the scope."""

FLUSH_S = 10.0
"""Seconds the end of a log may take to reach the server before the run's end is reported."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Toolbox:
    """What all runs of one worker share.

    Attributes:
        files: Limits the threads that read and write run files.
        removals: Limits those that remove what ops have left, which can take long and must not keep
            other runs' files waiting.
        parsers: Limits those that parse what containers write, which ops can make long.
        doubt_engine: Called when the engine does not answer; runs wait then until it does. None
            for a script, which is told at once.
        contact: What is known of the server.
        faults: At which runs the engine has failed.
    """

    settings: WorkerSettings
    engine: ContainerEngine
    pulls: SharedPulls
    gpus: GpuPool
    client: AsyncGyozaClient
    files: trio.CapacityLimiter
    doubt_engine: Callable[[], None] | None = None
    contact: ServerContact = field(default_factory=ServerContact)
    faults: EngineFaults = field(default_factory=EngineFaults)
    removals: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(4))
    parsers: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(2))


@dataclass
class RunScope:
    """What the steps of one run work with, found in the context's `extras`.

    Attributes:
        record: What has happened so far, also in an earlier life of the worker.
        tasks: The run's nursery; ends after the run's cancel scope.
        started: The report of STARTED; no container starts before the server has taken it.
        container_left: The container is not removed; if it cannot be, the sweep will.
        removal: Set when the removal that goes on beside the report of the end is over.
        container_id: Of the container that runs, or has run.
        limit: Ends the op, and no more than the op, when it is cancelled; while it runs.
        filled: Which disk the op is stopped for, in a sentence.
        made_room: What such an op has written is removed.
    """

    tools: Toolbox
    identity: ContainerIdentity
    record: RunRecord
    reporter: EventReporter
    shipper: LogShipper
    tasks: trio.Nursery
    started: Report | None = None
    container_left: bool = False
    removal: trio.Event | None = None
    container_id: str = ""
    limit: trio.CancelScope | None = None
    filled: str = ""
    made_room: bool = False

    def stop_for_disk(self, sentence: str) -> None:
        """Stop the op, for which its run fails; nothing unless it runs."""
        if self.limit is not None and not self.filled:
            self.filled = sentence
            self.limit.cancel()

    @property
    def begun(self) -> bool:
        """Whether the container may have been started: what it does is not to be done again."""
        return self.record.started_at is not None

    @property
    def owes_result(self) -> bool:
        """Whether the op has run to its end and what came of it is not recorded yet."""
        unknown = self.record.end is None and not self.reporter.lost.is_set()
        return self.record.exited is not None and unknown

    @property
    def owes_report(self) -> bool:
        """Whether the attempt has come to its end and the server has not yet taken all of it."""
        taken = self.reporter.settled and self.shipper.closed.is_set()
        return self.record.finished and not taken and not self.reporter.lost.is_set()

    async def through_outages(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what the call to the engine returns, waiting for the engine if need be.

        Raises:
            EngineFails: If the engine fails, and not for this run.
            WorkerLacks: If worker or engine lack something for it, but for a container that goes on
                meanwhile: it is looked for again as after an outage.
        """

        async def attempt() -> T:
            try:
                return await call()
            except (EngineError, OSError, MemoryError, RuntimeError) as error:
                lack = lack_of(error)
                if isinstance(error, EngineFailed) and lack is None and self._blames_engine():
                    raise EngineFails(str(error)) from error
                if lack is None or (self.begun and isinstance(error, EngineUnavailable)):
                    raise
                raise WorkerLacks(lack) from error

        if self.tools.doubt_engine is None:
            return await attempt()
        return await through_outages(attempt, self._name, self.tools.doubt_engine)

    def _blames_engine(self) -> bool:
        in_worker = self.tools.doubt_engine is not None
        return in_worker and self.tools.faults.meet(self.identity.run_id)

    async def in_thread(self, function: Callable[..., T], *args: object) -> T:
        """Run a blocking function on the run's files in a thread.

        It is run again if the worker lacks something for it once the container has begun.

        Raises:
            WorkerLacks: If the worker lacks something before that.
        """
        return await self.unless_lacking(Thread(function, *args, limiter=self.tools.files).run)

    async def unless_lacking(
        self,
        call: Callable[[], Awaitable[T]],
        judge: Callable[[Exception], str | None] = lack_of,
    ) -> T:
        """Return what the call returns, made again if need be once the container has begun.

        Args:
            call: Can be made again after it has failed.
            judge: Tells what an error says is lacking, as `lack_of` does.

        Raises:
            WorkerLacks: If the worker lacks something for it before the container has begun, or for
                a script.
        """
        if self.begun and self.tools.doubt_engine:
            return await outlast(call, self._name, judge)
        try:
            return await call()
        except Exception as error:
            if (lack := judge(error)) is None:
                raise
            raise WorkerLacks(lack) from error

    @property
    def _name(self) -> str:
        return f"Run {self.identity.run_id}"

    async def start_confirmed(self) -> None:
        """Wait until the server has taken STARTED, if it was told.

        Raises:
            LeaseLost: If the run is not this worker's (any more).
            ApiError: If the server refuses it as such.
        """
        if self.started:
            await self.reporter.confirmed(self.started)

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
    scope = find_scope(ctx)
    if scope is None:
        raise RuntimeError(
            "This step needs a worker around it; call `Pipeline([...]).run(ctx)` instead."
        )
    return scope


def find_scope(ctx: ExecutionContext) -> RunScope | None:
    """Return the scope the context runs in, if it runs in one."""
    scope = ctx.extras.get(KEY)
    return scope if isinstance(scope, RunScope) else None


def grace_of(ctx: ExecutionContext) -> float:
    """Return the seconds between the stop signal and SIGKILL: the run's own, else the worker's."""
    own: float | None = ctx.extras.get("grace_s")
    return scope_of(ctx).tools.settings.grace_s if own is None else own


@asynccontextmanager
async def open_run(
    ctx: ExecutionContext,
    tools: Toolbox,
    record: RunRecord,
    reporter: EventReporter,
    *,
    ship_logs: bool = True,
) -> AsyncGenerator[RunScope]:
    """Give the context a scope for as long as the block lasts, and until its container is gone.

    Without `ship_logs` the log stays in the context alone.
    """
    identity = reporter.identity
    shipper = LogShipper(tools.client, identity, record, tools.files, tools.contact)
    try:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(reporter.serve)
            tasks.start_soon(shipper.serve if ship_logs else shipper.discard)
            scope = RunScope(tools, identity, record, reporter, shipper, tasks)
            ctx.extras[KEY] = scope
            yield scope
            tasks.cancel_scope.cancel()
    finally:
        ctx.extras.pop(KEY, None)


async def report_failure(ctx: ExecutionContext, error: Exception) -> None:
    """Mark the run FAILED on the server, unless its end is known there or not ours to tell.

    An error that a cancel brought about is none: cancelled is not failed. Nor is one of the engine,
    the machine or the worker that ended the run: it is given back.
    """
    scope = find_scope(ctx)
    cancelled = trio.current_effective_deadline() == -math.inf
    if cancelled or scope is None or isinstance(error, RunInterrupted):
        return
    if scope.reporter.settled or scope.reporter.lost.is_set():
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
