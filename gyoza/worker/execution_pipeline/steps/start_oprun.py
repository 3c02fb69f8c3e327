"""Start OpRun step - sends STARTED event to master."""

from gyoza.models import EventType
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.types import ExecutionContext


async def start_oprun(ctx: ExecutionContext) -> ExecutionContext:
    """Send the STARTED event and wait until the server has taken it.

    Args:
        ctx: Execution context with `oprun_id`.

    Returns:
        The unchanged context.

    Raises:
        LeaseLost: If the server says that the run is not this worker's (any more), so that no
            container starts for it.
    """
    await scope_of(ctx).reporter.confirm(EventType.STARTED, "started")
    return ctx
