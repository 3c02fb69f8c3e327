"""Step protocol for the execution pipeline."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from gyoza.worker.execution_pipeline.types.context import ExecutionContext

F = TypeVar("F", bound=Callable[..., Any])


class Step(Protocol):
    """One step of a pipeline: takes the context and returns it, or an awaitable of it.

    An async function is awaited. A plain function runs in a thread, where
    `trio.from_thread.check_cancelled()` lets a long one notice that the run was cancelled.
    """

    def __call__(self, ctx: ExecutionContext) -> ExecutionContext | Awaitable[ExecutionContext]:
        """Do the step's work on the context and return it."""
        ...


def always_run(step: F) -> F:
    """Mark a step to run even after a failure or a cancel, in a bounded shield."""
    step.always_run = True  # pyright: ignore[reportFunctionMemberAccess]
    return step
