"""Run container step - executes container and streams logs."""

import logging
from contextlib import suppress
from functools import partial

from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.gpus import devices_in_use
from gyoza.worker.containers.stop import end_containers
from gyoza.worker.errors import GpusTaken, OpDirNotRemoved, OpFilledDisk, OpTimedOut
from gyoza.worker.execution_pipeline.op_container import OpContainer
from gyoza.worker.execution_pipeline.run_scope import RunScope, grace_of, scope_of
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.lacks import Thread, outlast
from gyoza.worker.logs.tail import MAX_TAIL
from gyoza.worker.op_io.op_dir import mounted_dir, remove_op_dir
from gyoza.worker.run_record import Exit

logger = logging.getLogger(__name__)


class RunContainer:
    """Run the container and stream logs.

    The output is attached before the start, so nothing of it is missed; gyoza events in it go to
    the server, the rest becomes the log. A container that an earlier life of the worker has left,
    or that was lost sight of while the engine was away, is taken up where it is. Whatever happens,
    it is gone afterwards: on a cancel it is asked to stop, killed after the grace period, and
    waited for.
    """

    async def __call__(self, ctx: ExecutionContext) -> ExecutionContext:
        """Run it and set `exit_code`, `logs` and `extras["oom_killed"]`.

        Raises:
            OpTimedOut: If it ran longer than `extras["timeout_s"]`.
            OpFilledDisk: If it was stopped for the disk that it filled.
            RunInterrupted: If the engine or the machine ended it.
            EngineError: If the engine cannot run it.
        """
        exited = await self._exit(ctx)
        if exited.filled:
            await _make_room(scope_of(ctx))
            raise OpFilledDisk(exited.filled)
        if exited.timed_out:
            limit = ctx.extras["timeout_s"]
            sentence = f"The op ran longer than its limit of {limit:g} s."
            if exited.oom_killed:
                sentence += " Before its end one of its processes was killed for memory."
            raise OpTimedOut(sentence)
        ctx.exit_code = exited.exit_code
        ctx.extras["oom_killed"] = exited.oom_killed
        return ctx

    async def _exit(self, ctx: ExecutionContext) -> Exit:
        scope = scope_of(ctx)
        record = scope.record
        if record.started_at is None:
            return await _run_on_gpus(ctx, scope)
        # In an earlier life of the worker; by its labels the container holds its GPUs.
        ctx.extras["gpu_ids"] = record.gpu_ids
        if record.exited is None:
            return await OpContainer(scope, ctx, {}).run()
        ctx.logs = await scope.in_thread(record.spool.end, MAX_TAIL)
        return record.exited


async def _make_room(scope: RunScope) -> None:
    """Remove what the op has written before that is told: the server may need the room for it."""
    if scope.removal is not None:
        await scope.removal.wait()
    thread = Thread(
        remove_op_dir, mounted_dir(scope.record.directory), limiter=scope.tools.removals
    )
    with suppress(OpDirNotRemoved):  # the engine clears it when the run is cleaned up
        await outlast(thread.run, f"The removal of what run {scope.identity.run_id} has written")
    scope.made_room = True


async def _run_on_gpus(ctx: ExecutionContext, scope: RunScope) -> Exit:
    """Run a container that has never started, on GPUs that nobody else on this machine has."""
    engine, vram_mb = scope.tools.engine, ctx.constraints.get("vram_mb") or 0
    in_use = partial(scope.through_outages, partial(devices_in_use, engine))
    left, backoff = not scope.record.fresh, Backoff()
    while True:
        if left and vram_mb:
            # Made for GPUs that are another run's by now, and by its labels it holds them.
            await end_containers(engine, scope.identity.key, grace_of(ctx))
        async with scope.tools.gpus.hold(vram_mb, in_use) as gpus:
            ctx.extras["gpu_ids"] = [*gpus]
            try:
                return await OpContainer(scope, ctx, gpus).run()
            except GpusTaken as taken:
                logger.info("Run %s asks for GPUs once more: %s", ctx.oprun_id, taken)
        left = True
        await backoff.wait()
