"""Start OpRun step - sends STARTED event to master."""

from gyoza.models import EventType
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.types import ExecutionContext


async def start_oprun(ctx: ExecutionContext) -> ExecutionContext:
    """Send the STARTED event, unless the server has taken it before.

    Its answer is waited for before a container starts, and not here: meanwhile one can be created.

    Args:
        ctx: Execution context with `oprun_id`.

    Returns:
        The unchanged context.
    """
    scope = scope_of(ctx)
    if scope.record.started_at is None:
        scope.started = scope.reporter.tell(EventType.STARTED, "started")
    return ctx
