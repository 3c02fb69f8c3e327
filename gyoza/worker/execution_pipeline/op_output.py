"""The output of an attempt's container, followed beside what is done with the container."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from gyoza.models import EventType
from gyoza.worker.containers.engine import LogStream
from gyoza.worker.execution_pipeline.run_scope import RunScope
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.logs.masker import INCOMPLETE, Secrets
from gyoza.worker.logs.output import ContainerOutput

OUTPUT_S, OUTPUT_STALL_S = 600.0, 10.0
"""Seconds that the rest of the output may take after the exit, and those without any of it."""


@asynccontextmanager
async def op_output(
    scope: RunScope, ctx: ExecutionContext, container_id: str, *, attach: bool
) -> AsyncGenerator[ContainerOutput]:
    """Follow the container's output, to its end if it exits, in the run's nursery.

    Args:
        scope: The run's scope.
        ctx: Tells the variables; gets the end of the output as `logs`.
        container_id: Its id or name.
        attach: It has not started: its stream is opened before the block begins.

    Raises:
        ContainerNotFound: If there is none to attach to.
    """
    engine = scope.tools.engine
    names = [*scope.record.run.secrets, *scope.tools.settings.secret_env]
    secrets = Secrets()
    if names:
        secrets = await scope.in_thread(
            Secrets.of_variables, names, ctx.env_vars, scope.identity.run_id
        )
    if attach and not secrets.complete:
        scope.reporter.note(EventType.INFO, INCOMPLETE)
    output = ContainerOutput(
        scope.record,
        scope.reporter,
        scope.shipper.grown,
        scope.tools.files,
        secrets,
        scope.tools.parsers,
    )
    following, followed = trio.CancelScope(), trio.Event()

    async def follow(stream: LogStream | None) -> None:
        try:
            with following:
                await output.follow(engine, container_id, stream)
        finally:
            followed.set()

    async with AsyncExitStack() as stack:
        attached = None
        if attach:
            attached = await stack.enter_async_context(engine.attach(container_id))
        scope.tasks.start_soon(follow, attached)
        try:
            yield output
        finally:
            with trio.move_on_after(OUTPUT_S, shield=True):
                await output.end(OUTPUT_STALL_S)
            following.cancel()
            with trio.move_on_after(OUTPUT_STALL_S, shield=True):
                await followed.wait()
            ctx.logs = output.tail.text()
