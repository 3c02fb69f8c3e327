"""Clean-up step - removes the run's directory."""

from pathlib import Path

import trio

from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.execution_pipeline.types.step import always_run
from gyoza.worker.op_io.op_dir import remove_op_dir


@always_run
async def cleanup_op_dir(ctx: ExecutionContext) -> ExecutionContext:
    """Delete the op directory created by `PrepareInputs`, whatever the op left in it.

    Args:
        ctx: Execution context with `gyoza_dir` in `extras`, or without if none was made.

    Returns:
        The unchanged context.
    """
    if gyoza_dir := ctx.extras.get("gyoza_dir"):
        await trio.to_thread.run_sync(remove_op_dir, Path(gyoza_dir))
    return ctx
