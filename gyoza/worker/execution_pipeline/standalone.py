"""Runs a pipeline from a plain script: one run, its own engine and client, no worker."""

import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from gyoza.client import AsyncGyozaClient, ClientError
from gyoza.models import OpRun
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.gpus import GpuPool
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.containers.pulls import SharedPulls
from gyoza.worker.execution_pipeline.run_scope import Toolbox, open_run
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.lacks import in_thread
from gyoza.worker.op_io.op_dir import remove_op_dir
from gyoza.worker.reports.delivery import Delivery
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.reports.report import Report
from gyoza.worker.run_record import RunRecord
from gyoza.worker.server_contact import ServerContact
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import detect_resources

CLEANUP_S = 60.0
"""Seconds that removing the run directory may take."""

logger = logging.getLogger(__name__)


class _ScriptDelivery(Delivery):
    """Tells the server if there is one that knows the run; the script has the result anyway.

    Attributes:
        told: The run's id at the server; empty if there is none to be told.
    """

    told = ""

    async def send(self, reports: Sequence[Report]) -> None:
        """Send each once."""
        for report in reports:
            if not self.told:
                return
            try:
                await self._client.add_event(
                    self.told, report.type, report.msg, report.payload, summary=report.summary
                )
            except (ClientError, httpx.HTTPStatusError) as error:
                logger.warning("Run %s goes on unreported: %s", self.told, error)
                self.told = ""


async def run_standalone(step: Callable[[ExecutionContext], Any], ctx: ExecutionContext) -> Any:
    """Run an async step in a scope of its own and return what it returns.

    Raises:
        Exception: Whatever the step raised, bare.
    """
    settings = WorkerSettings.from_env()
    # An id of its own: this machine's worker removes what carries its id when it starts.
    script = f"script-{uuid.uuid4().hex}"
    identity = ContainerIdentity(script, ctx.oprun_id or script, attempt=1)
    resources = await in_thread(detect_resources)
    failure: Exception | None = None
    async with (
        AsyncGyozaClient(None) as client,
        open_docker_engine(concurrency=1) as engine,
        trio.open_nursery() as pulling,
    ):
        tools = Toolbox(
            settings=settings,
            engine=engine,
            pulls=SharedPulls(engine, pulling, settings.registry_wait_s),
            gpus=GpuPool(resources.gpus),
            client=client,
            files=trio.CapacityLimiter(4),
        )
        directory = settings.work_dir / "_scripts" / script  # no worker id begins like this
        async with _record(directory, OpRun(id=identity.run_id), tools.files) as record:
            reporter = EventReporter(client, identity, record, tools.files)
            reporter.delivery = delivery = _ScriptDelivery(client, identity, ServerContact())
            delivery.told = ctx.oprun_id
            async with open_run(ctx, tools, record, reporter, ship_logs=False) as scope:
                try:
                    ctx = await step(ctx)
                    await scope.start_confirmed()
                except Exception as error:  # noqa: BLE001  raised below, outside the groups
                    failure = error
    if failure:
        raise failure
    return ctx


@asynccontextmanager
async def _record(
    directory: Path, run: OpRun, limiter: trio.CapacityLimiter
) -> AsyncGenerator[RunRecord]:
    record = await in_thread(RunRecord.create, directory, run, limiter=limiter)
    try:
        yield record
    finally:
        record.close()
        with trio.move_on_after(CLEANUP_S, shield=True):
            await in_thread(remove_op_dir, directory, limiter=limiter)
