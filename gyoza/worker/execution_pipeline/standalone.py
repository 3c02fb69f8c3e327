"""Runs a pipeline from a plain script: one run, its own engine and client, no worker."""

import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import trio

from gyoza.client import AsyncGyozaClient, ClientError
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.gpus import GpuPool
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.containers.pulls import SharedPulls
from gyoza.worker.execution_pipeline.run_scope import Toolbox, open_run
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.reports.events import EventReporter, Report
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import detect_resources

logger = logging.getLogger(__name__)


class _ScriptReporter(EventReporter):
    """Tells the server if there is one that knows the run; the script has the result anyway."""

    def __init__(self, client: AsyncGyozaClient, identity: ContainerIdentity, told: str) -> None:
        super().__init__(client, identity)
        self._told = told

    async def _send(self, report: Report) -> None:
        if not self._told:
            return
        try:
            await self._client.add_event(
                self._told, report.type, report.msg, report.payload, summary=report.summary
            )
        except (ClientError, httpx.HTTPStatusError) as error:
            logger.warning("Run %s goes on unreported: %s", self._told, error)
            self._told = ""


async def run_standalone(step: Callable[[ExecutionContext], Any], ctx: ExecutionContext) -> Any:
    """Run an async step in a scope of its own and return what it returns.

    Raises:
        Exception: Whatever the step raised, bare.
    """
    settings = WorkerSettings.from_env()
    settings = replace(settings, work_dir=settings.work_dir / "_scripts")  # no worker id
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    # An id of its own: this machine's worker removes what carries its id when it starts.
    script = f"script-{uuid.uuid4().hex}"
    identity = ContainerIdentity(script, ctx.oprun_id or script, attempt=1)
    resources = await trio.to_thread.run_sync(detect_resources)
    failure: Exception | None = None
    async with (
        AsyncGyozaClient(None) as client,
        open_docker_engine(concurrency=1) as engine,
        trio.open_nursery() as pulling,
    ):
        tools = Toolbox(
            settings=settings,
            engine=engine,
            pulls=SharedPulls(engine, pulling),
            gpus=GpuPool(resources.gpus),
            client=client,
            files=trio.CapacityLimiter(4),
        )
        reporter = _ScriptReporter(client, identity, told=ctx.oprun_id)
        async with open_run(ctx, tools, reporter, ship_logs=False):
            try:
                ctx = await step(ctx)
            except Exception as error:  # noqa: BLE001  raised below, outside the nurseries' groups
                failure = error
    if failure:
        raise failure
    return ctx
