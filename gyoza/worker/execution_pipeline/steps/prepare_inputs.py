"""Prepare inputs step - makes the run's directory and writes the inputs into it."""

from pathlib import Path
from typing import Any

from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.op_io.inputs import write_inputs
from gyoza.worker.op_io.op_dir import INPUT_JSON, INPUT_PICKLE, OUTPUT, make_op_dir, mounted_dir

MOUNT = "/gyoza"
"""Where the container sees the run's directory."""


class PrepareInputs:
    """Prepare the inputs for the container execution.

    Creates a directory for this attempt alone, mounted at `/gyoza`, writes the inputs into it as a
    pickle and as JSON, and sets the `GYOZA_*` variables that tell the op where everything is.

    The worker's own variables that its settings name are added, over those of the run: who submits
    a run is not to choose what an op takes for the worker's word.
    """

    async def __call__(self, ctx: ExecutionContext) -> ExecutionContext:
        """Make the directory and the variables; a container that was started keeps its directory.

        Raises:
            InputsInvalid: If the inputs are not plain data.
            OSError: If the directory cannot be made or written.
        """
        scope = scope_of(ctx)
        run, directory = scope.identity, scope.record.directory
        mounted = mounted_dir(directory)
        ctx.extras["gyoza_dir"] = str(mounted)
        if scope.record.started_at is None:
            await scope.in_thread(_make, directory, ctx.inputs)
        ctx.volumes[str(mounted)] = MOUNT
        ctx.env_vars |= scope.tools.settings.passed_env | {
            "GYOZA_INPUT_PATH": f"{MOUNT}/{INPUT_PICKLE}",
            "GYOZA_INPUT_JSON_PATH": f"{MOUNT}/{INPUT_JSON}",
            "GYOZA_OUTPUT_PATH": f"{MOUNT}/{OUTPUT}",
            "GYOZA_RUN_ID": run.run_id,
            "GYOZA_ATTEMPT": str(run.attempt),
        }
        return ctx


def _make(directory: Path, inputs: dict[str, Any]) -> None:
    make_op_dir(directory)
    write_inputs(directory, inputs)
