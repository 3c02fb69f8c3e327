"""Run container step - executes container and streams logs."""

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from gyoza.models import EventType
from gyoza.worker.containers.engine import ContainerEngine, ContainerSpec
from gyoza.worker.containers.stop import stop_container
from gyoza.worker.errors import EngineError, OpTimedOut
from gyoza.worker.execution_pipeline.run_scope import RunScope, scope_of
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.logs.events import OpEvent
from gyoza.worker.logs.output import ContainerOutput

ENGINE_S = 30.0
"""Seconds the engine may take to end or remove a container, besides the grace period."""

OUTPUT_END_S = 10.0
"""Seconds in which the output of a container that has exited must come to its end."""

logger = logging.getLogger(__name__)


class RunContainer:
    """Run the container and stream logs.

    The output is attached before the start, so nothing of it is missed; gyoza events in it go to
    the server, the rest becomes the log. Whatever happens, the container is gone afterwards: on a
    cancel it is asked to stop, killed after the grace period, and waited for.
    """

    async def __call__(self, ctx: ExecutionContext) -> ExecutionContext:
        """Run it and set `exit_code`, `logs` and `extras["oom_killed"]`.

        Raises:
            OpTimedOut: If it ran longer than `extras["timeout_s"]`.
            EngineError: If the engine cannot run it.
        """
        scope = scope_of(ctx)
        async with (
            scope.tools.gpus.hold(ctx.constraints.get("vram_mb") or 0) as gpu_ids,
            _container(scope, _spec(scope, ctx, gpu_ids)) as container_id,
            _output(scope, ctx, container_id) as output,
        ):
            ctx.extras["gpu_ids"] = gpu_ids
            await _start(scope.tools.engine, container_id, output)
            await _wait(scope, ctx, container_id)
        return ctx


async def _start(engine: ContainerEngine, container_id: str, output: ContainerOutput) -> None:
    try:
        # Shielded so that it is known whether the container runs; the call has a deadline.
        with trio.CancelScope(shield=True):
            await engine.start(container_id)
    except EngineError:
        output.ended.set()  # it never ran: nothing to wait for
        raise


async def _wait(scope: RunScope, ctx: ExecutionContext, container_id: str) -> None:
    """Wait for the exit; on a cancel or time-out stop the container first."""
    engine, grace_s = scope.tools.engine, scope.tools.settings.grace_s
    timeout_s = ctx.extras.get("timeout_s") or math.inf
    exited = None
    try:
        with trio.move_on_after(timeout_s):
            exited = await engine.wait(container_id)
    finally:
        if exited is None:
            with trio.move_on_after(grace_s + ENGINE_S, shield=True):
                await stop_container(engine, container_id, grace_s)
    if exited is None:
        raise OpTimedOut(f"The op ran longer than its limit of {timeout_s:g} s.")
    if exited.error:
        raise EngineError(f"The engine could not run the container: {exited.error}")
    ctx.exit_code = exited.exit_code
    ctx.extras["oom_killed"] = exited.oom_killed


def _spec(scope: RunScope, ctx: ExecutionContext, gpu_ids: list[int]) -> ContainerSpec:
    return ContainerSpec(
        name=scope.identity.name,
        image=ctx.image,
        command=ctx.extras.get("command"),
        env=ctx.env_vars,
        labels=scope.identity.labels,
        volumes=ctx.volumes,
        cpu=ctx.constraints.get("cpu"),
        ram_mb=ctx.constraints.get("ram_mb"),
        gpu_ids=gpu_ids,
    )


@asynccontextmanager
async def _container(scope: RunScope, spec: ContainerSpec) -> AsyncGenerator[str]:
    """Create the container; remove it at the end, by name should its creation have broken off."""
    try:
        yield await scope.tools.engine.create(spec)
    finally:
        with trio.move_on_after(ENGINE_S, shield=True):
            await scope.tools.engine.remove(spec.name)


@asynccontextmanager
async def _output(
    scope: RunScope, ctx: ExecutionContext, container_id: str
) -> AsyncGenerator[ContainerOutput]:
    """Follow the container's output, to its end, in the run's nursery."""

    def on_event(event: OpEvent) -> None:
        scope.reporter.note(EventType(event.type), event.msg, event.payload)

    output = ContainerOutput(scope.spool, on_event, scope.shipper.grown, scope.tools.files)
    async with scope.tools.engine.attach(container_id) as stream:
        scope.tasks.start_soon(output.follow, stream)
        try:
            yield output
        finally:
            with trio.move_on_after(OUTPUT_END_S, shield=True):
                await output.ended.wait()
            ctx.logs = output.tail.text()
