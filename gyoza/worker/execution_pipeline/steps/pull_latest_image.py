"""Pull latest image step - ensures the latest version of the image is available."""

from functools import partial

from gyoza.models import EventType
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.types import ExecutionContext


async def pull_latest_image(ctx: ExecutionContext) -> ExecutionContext:
    """Pull the latest version of the Docker image before execution.

    Progress goes out as INFO events; runs that want the same image share one pull.

    Args:
        ctx: Execution context with the image name.

    Returns:
        The unchanged context.

    Raises:
        ImagePullError: If the registry does not give it, or cannot be reached and it is not here.
        PolicyRefused: If this worker does not allow the image.
        ImageNotFound: If the policy is `never` and the engine does not have the image.
    """
    scope = scope_of(ctx)
    if scope.record.started_at is not None:  # its container is there already
        return ctx
    constraints = ctx.constraints
    scope.tools.settings.policy.require_allowed(
        ctx.image, constraints.get("cpu"), constraints.get("ram_mb")
    )
    pull = partial(
        scope.tools.pulls.ensure,
        ctx.image,
        scope.tools.settings.pull_policy,
        partial(scope.reporter.note, EventType.INFO),
    )
    await scope.through_outages(pull)
    return ctx
