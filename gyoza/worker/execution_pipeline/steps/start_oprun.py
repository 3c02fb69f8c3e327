"""Start OpRun step - sends STARTED event to master."""

from gyoza.models import EventType
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.types import ExecutionContext


async def start_oprun(ctx: ExecutionContext) -> ExecutionContext:
    """Send the STARTED event and wait until the server has taken it, unless it has before.

    Args:
        ctx: Execution context with `oprun_id`.

    Returns:
        The unchanged context.

    Raises:
        LeaseLost: If the server says that the run is not this worker's (any more), so that no
            container starts for it.
    """
    scope = scope_of(ctx)
    if scope.record.started_at is None:  # a container starts only after the server has taken this
        await scope.reporter.confirm(EventType.STARTED, "started")
    return ctx
