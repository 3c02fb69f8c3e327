"""Clean-up step - removes the folder that the run shared with its container."""

import logging
from pathlib import Path

import trio

from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.containers.stop import remove_container
from gyoza.worker.errors import EngineError, OpDirNotRemoved
from gyoza.worker.execution_pipeline.run_scope import RunScope, scope_of
from gyoza.worker.execution_pipeline.steps.prepare_inputs import MOUNT
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.execution_pipeline.types.step import always_run
from gyoza.worker.lacks import Thread, outlast
from gyoza.worker.op_io.op_dir import folders_in, remove_op_dir

CLEANUP_S = 60.0
"""Seconds that removing the container may take with which the engine empties a folder."""

NAMES_AT_ONCE = 10_000

logger = logging.getLogger(__name__)


@always_run
async def cleanup_op_dir(ctx: ExecutionContext) -> ExecutionContext:
    """Delete the op directory created by `PrepareInputs`, whatever the op left in it.

    What the op owns and the worker may not remove, the engine clears. The directory stays if the
    worker leaves before the op's result was reported, for the next start to do so.

    Args:
        ctx: Execution context with `gyoza_dir` in `extras`, or without if none was made.

    Returns:
        The unchanged context.

    Raises:
        OpDirNotRemoved: If not even the engine can.
    """
    scope = scope_of(ctx)
    gyoza_dir = ctx.extras.get("gyoza_dir")
    may_still_run = scope.container_left and scope.removal is None
    if not gyoza_dir or may_still_run or scope.owes_result:
        return ctx
    folder = Path(gyoza_dir)
    try:
        await _remove(folder, scope)
    except OpDirNotRemoved:
        if scope.removal is not None:
            await scope.removal.wait()
        await _let_engine_clear(scope, ctx.image, folder)
        await _remove(folder, scope)
    return ctx


async def _remove(folder: Path, scope: RunScope) -> None:
    thread = Thread(remove_op_dir, folder, limiter=scope.tools.removals)
    await outlast(thread.run, f"The removal of {folder}")


async def _let_engine_clear(scope: RunScope, image: str, folder: Path) -> None:
    """Have the engine clear the folder of other users' folders, by a container never started."""
    engine, name = scope.tools.engine, scope.identity.cleanup_name
    labels, volumes = scope.identity.cleanup_labels, {str(folder): MOUNT}
    spec = ContainerSpec(name=name, image=image, labels=labels, volumes=volumes)
    try:
        await remove_container(engine, name)  # that of an earlier life
        try:
            container_id = await engine.create(spec)
            await engine.replace_folders(container_id, MOUNT, [])
            while names := await scope.in_thread(folders_in, folder, NAMES_AT_ONCE):
                await engine.replace_folders(container_id, MOUNT, names)
        finally:
            with trio.move_on_after(CLEANUP_S, shield=True):
                await remove_container(engine, name)
    except EngineError as error:
        logger.info("The engine does not clear %s: %s", folder, error)
