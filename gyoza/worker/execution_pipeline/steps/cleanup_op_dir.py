"""Clean-up step - removes the folder that the run shared with its container."""

from pathlib import Path

from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.execution_pipeline.types.step import always_run
from gyoza.worker.op_io.op_dir import remove_op_dir


@always_run
async def cleanup_op_dir(ctx: ExecutionContext) -> ExecutionContext:
    """Delete the op directory created by `PrepareInputs`, whatever the op left in it.

    It stays if the worker leaves before the op's result was reported, for the next start to do so.

    Args:
        ctx: Execution context with `gyoza_dir` in `extras`, or without if none was made.

    Returns:
        The unchanged context.
    """
    scope = scope_of(ctx)
    gyoza_dir = ctx.extras.get("gyoza_dir")
    if gyoza_dir and not scope.container_left and not scope.owes_result:
        await scope.in_thread(remove_op_dir, Path(gyoza_dir))
    return ctx
