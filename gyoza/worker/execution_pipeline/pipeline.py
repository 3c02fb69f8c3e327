"""Pipeline implementation."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import cast

import trio

from gyoza.worker.execution_pipeline.run_scope import find_scope, report_failure
from gyoza.worker.execution_pipeline.types import ExecutionContext, Step
from gyoza.worker.lacks import Thread

CLEANUP_S = 60.0
"""Seconds that one step marked `always_run` may take."""

logger = logging.getLogger(__name__)


class Pipeline:
    """A sequence of steps executed in order; itself a step, so pipelines nest.

    If a step raises, the run is marked FAILED on the server and the exception goes on to the
    caller. Steps marked `always_run` run in any case.

    Args:
        steps: Ordered list of steps.
    """

    def __init__(self, steps: list[Step] | None = None) -> None:
        self.steps = list(steps or [])

    async def __call__(self, ctx: ExecutionContext) -> ExecutionContext:
        """Execute all steps in sequence, inside a running Trio loop."""
        remaining = iter(self.steps)
        try:
            ctx = await _execute(remaining, ctx)
        except Exception as error:
            await report_failure(ctx, error)
            raise
        finally:
            # Nothing is left after a success; after a failure or cancel, only what must run.
            with trio.move_on_after(CLEANUP_S, shield=True):
                await _execute((step for step in remaining if _runs_always(step)), ctx)
        return ctx

    def run(self, ctx: ExecutionContext | None = None) -> ExecutionContext:
        """Execute all steps in sequence, from a plain script.

        Blocks until the run has ended. Docker is found as the `docker` command finds it, the
        server by `GYOZA_SERVER_URL`; reports that no server takes are logged and left out.

        Args:
            ctx: Shared context; created if not given.

        Returns:
            The context after all steps.

        Raises:
            RuntimeError: If called inside a running Trio loop.
            Exception: Whatever the failing step raised.
        """
        if trio.lowlevel.in_trio_run():
            raise RuntimeError(
                "Pipeline.run() blocks and cannot be called inside a running Trio loop; "
                "use `await pipeline(ctx)` there."
            )
        from gyoza.worker.execution_pipeline.standalone import run_standalone

        return trio.run(run_standalone, self, ctx or ExecutionContext())


def _runs_always(step: Step) -> bool:
    return getattr(step, "always_run", False)


async def _execute(steps: Iterator[Step], ctx: ExecutionContext) -> ExecutionContext:
    for step in steps:
        if _runs_always(step):
            with _bounded_shield(step):
                ctx = await _invoke(step, ctx)
        else:
            ctx = await _invoke(step, ctx)
    return ctx


async def _invoke(step: Step, ctx: ExecutionContext) -> ExecutionContext:
    is_async = inspect.iscoroutinefunction(step) or inspect.iscoroutinefunction(type(step).__call__)
    if is_async:
        return await cast("Awaitable[ExecutionContext]", step(ctx))
    thread = Thread(cast("Callable[..., ExecutionContext]", step), ctx)
    scope = find_scope(ctx)
    return await (scope.unless_lacking(thread.run, thread.lack_of) if scope else thread.run())


@contextmanager
def _bounded_shield(step: Step) -> Generator[None]:
    with trio.move_on_after(CLEANUP_S, shield=True) as scope:
        yield
    if scope.cancelled_caught:
        logger.error("%s was not done within %g s and is given up.", step, CLEANUP_S)
