"""Run container step - executes container and streams logs."""

from gyoza.worker.errors import OpTimedOut
from gyoza.worker.execution_pipeline.op_container import OpContainer
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.logs.tail import MAX_TAIL
from gyoza.worker.run_record import Exit


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
            RunInterrupted: If the engine or the machine ended it.
            EngineError: If the engine cannot run it.
        """
        exited = await self._exit(ctx)
        if exited.timed_out:
            limit = ctx.extras["timeout_s"]
            raise OpTimedOut(f"The op ran longer than its limit of {limit:g} s.")
        ctx.exit_code = exited.exit_code
        ctx.extras["oom_killed"] = exited.oom_killed
        return ctx

    async def _exit(self, ctx: ExecutionContext) -> Exit:
        scope = scope_of(ctx)
        record = scope.record
        if record.started_at is None:
            async with scope.tools.gpus.hold(ctx.constraints.get("vram_mb") or 0) as gpu_ids:
                ctx.extras["gpu_ids"] = gpu_ids
                return await OpContainer(scope, ctx, gpu_ids).run()
        # In an earlier life of the worker; its GPUs are reserved for as long as the run is here.
        ctx.extras["gpu_ids"] = record.gpu_ids
        if record.exited is None:
            return await OpContainer(scope, ctx, record.gpu_ids).run()
        ctx.logs = await scope.in_thread(record.spool.end, MAX_TAIL)
        return record.exited
