"""Nests the worker's nurseries by lifetime; the inner ones end first.

services   heartbeats, watches of engine, disks and shortages, fence, state refresh, sweep, drain
  runs       one task for every op run
    claiming   the claim loop
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from gyoza import descriptors
from gyoza.client import ApiError, AsyncGyozaClient, ClientError
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.engine import ContainerEngine
from gyoza.worker.containers.engine_fit import require_fit
from gyoza.worker.containers.gpus import GpuPool
from gyoza.worker.containers.pulls import SharedPulls
from gyoza.worker.errors import SettingsError
from gyoza.worker.execution_pipeline import Pipeline, execution_pipeline
from gyoza.worker.execution_pipeline.run_scope import Toolbox
from gyoza.worker.lacks import in_thread
from gyoza.worker.runner.active_runs import ActiveRuns
from gyoza.worker.runner.claim_loop import claim_loop
from gyoza.worker.runner.disk_watch import DiskWatch
from gyoza.worker.runner.drain import enforce_drain_timeout, leave_when_idle
from gyoza.worker.runner.engine_watch import EngineWatch
from gyoza.worker.runner.fence import fence
from gyoza.worker.runner.full_disk import guard_disks
from gyoza.worker.runner.heartbeats import beat, beat_at_changes, heartbeat_loop
from gyoza.worker.runner.orphan_sweep import sweep_orphans
from gyoza.worker.runner.readiness import Obstacle, Readiness
from gyoza.worker.runner.shortage import Shortage
from gyoza.worker.runner.slots import slots_that_fit
from gyoza.worker.runner.state_refresh import refresh_states
from gyoza.worker.runner.take_up import recall_runs, take_up
from gyoza.worker.runner.work_dir import hold_work_dir
from gyoza.worker.runner.worker import Worker
from gyoza.worker.server_client import WorkerClient
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import WorkerContext, detect_resources

FILE_THREADS = 8
HEARTBEAT_S = 10.0
"""Seconds for each step of a heartbeat, at most."""
GOODBYE_S = 5.0
"""Seconds the last heartbeat may take."""

logger = logging.getLogger(__name__)


async def run_worker(
    settings: WorkerSettings,
    *,
    context: WorkerContext | None = None,
    engine: ContainerEngine | None = None,
    pipeline: Pipeline = execution_pipeline,
    task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a worker until it has drained; started once it is registered and about to claim.

    Args:
        settings: See `WorkerSettings`.
        context: Filled with who this worker is and what it runs; made if not given.
        engine: Docker, found as the `docker` command finds it, if not given.
        pipeline: What every run goes through.
        task_status: Gets the `Worker`, whose `drain` ends it.

    Raises:
        ExceptionGroup: Of `EngineError` if the engine does not answer at the start or lacks what
            every run needs, of `SettingsError` if it does not have what the settings name, the
            server refuses the key or the work directory is not usable, and of `WorkerTaken` if
            another process is this worker.
    """
    async with open_worker(settings, context=context, engine=engine, pipeline=pipeline) as worker:
        await supervise(worker, task_status=task_status)


@asynccontextmanager
async def open_worker(
    settings: WorkerSettings,
    *,
    context: WorkerContext | None = None,
    engine: ContainerEngine | None = None,
    pipeline: Pipeline = execution_pipeline,
) -> AsyncGenerator[Worker]:
    """Open all that a worker needs, for as long as the block lasts."""
    # In a thread: looking at the GPUs can take its time.
    context = await in_thread(_with_resources, context)
    context.worker_id, context.tags = settings.worker_id, settings.tags
    context.resources.cpu_cores = settings.cpus or context.resources.cpu_cores
    context.resources.ram_mb = settings.ram_mb or context.resources.ram_mb
    slots = slots_that_fit(settings.max_concurrency)
    async with AsyncExitStack() as stack:
        instance = stack.enter_context(hold_work_dir(settings))
        settings = replace(settings, work_dir=instance.directory)
        client = await stack.enter_async_context(WorkerClient(settings.access))
        _check_access(client, settings)
        engine = engine or await stack.enter_async_context(open_docker_engine(concurrency=slots))
        info = await engine.info()
        if info.warning:
            logger.warning("%s", info.warning)
        await require_fit(engine, info, settings.policy)
        readiness = Readiness()
        engine_watch = EngineWatch(engine, readiness, settings.policy)
        tools = Toolbox(
            settings=settings,
            engine=engine,
            pulls=SharedPulls(
                engine,
                await stack.enter_async_context(trio.open_nursery()),
                settings.registry_wait_s,
            ),
            gpus=GpuPool(context.resources.gpus),
            client=client,
            files=trio.CapacityLimiter(FILE_THREADS),
            doubt_engine=engine_watch.doubt,
        )
        yield Worker(
            tools=tools,
            instance=instance,
            pipeline=pipeline,
            context=context,
            heartbeats=await stack.enter_async_context(
                WorkerClient(settings.access, timeout=HEARTBEAT_S)
            ),
            active=ActiveRuns(context, slots),
            readiness=readiness,
            engine_watch=engine_watch,
            disk_watch=DiskWatch(
                settings.work_dir, Path(info.data_root), settings.min_free_mb, readiness
            ),
            shortage=Shortage(readiness),
            engine_trouble=Shortage(readiness, Obstacle.ENGINE_FAILS),
        )


def _check_access(client: AsyncGyozaClient, settings: WorkerSettings) -> None:
    """Read key and certificates now: later on, what is wrong with them would be waited out."""
    try:
        client.check()
    except ClientError as error:
        raise SettingsError(str(error)) from error
    for warning in settings.access.warnings:
        logger.warning("%s", warning)


def _with_resources(context: WorkerContext | None) -> WorkerContext:
    if context is None:
        return WorkerContext(resources=detect_resources())
    _ = context.resources  # this process's own context looks at the machine only now
    return context


async def supervise(
    worker: Worker, *, task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run the worker's nurseries until it has drained."""
    recalled = await recall_runs(worker)
    async with trio.open_nursery() as services:
        services.start_soon(worker.engine_watch.serve)
        services.start_soon(worker.engine_watch.hear_exits)
        await services.start(worker.disk_watch.serve)
        services.start_soon(guard_disks, worker)
        services.start_soon(fence, worker)
        services.start_soon(worker.shortage.serve)
        services.start_soon(worker.engine_trouble.serve)
        services.start_soon(beat_at_changes, worker)
        await services.start(heartbeat_loop, worker)
        await worker.readiness.wait({Obstacle.FENCE})
        services.start_soon(refresh_states, worker)
        services.start_soon(sweep_orphans, worker)
        services.start_soon(enforce_drain_timeout, worker)
        services.start_soon(leave_when_idle, worker)
        logger.info(
            "Worker %s is ready and takes up to %d runs at a time. %s files and connections may be "
            "open.",
            worker.settings.worker_id,
            worker.active.slots,
            descriptors.in_words(),
        )
        worker.ready.set()
        task_status.started(worker)
        async with trio.open_nursery() as runs:
            for run in recalled:
                runs.start_soon(take_up, run, worker)
            await claim_loop(worker, runs)
        await _say_goodbye(worker)
        services.cancel_scope.cancel()
    logger.info("Worker %s has drained.", worker.settings.worker_id)


async def _say_goodbye(worker: Worker) -> None:
    """Tell the server that this worker ends; one that is away takes it for lost later."""
    with trio.move_on_after(GOODBYE_S):
        async with worker.beating:  # one under way comes first, and none comes after
            try:
                await beat(worker, leaving=True)
            except (ApiError, ClientError) as error:
                logger.info("The server was not told that this worker goes: %s", error)
