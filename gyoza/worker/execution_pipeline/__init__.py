"""Execution Pipeline.

The pre-configured `execution_pipeline` runs the full execution of an OpRun.

Example:
    >>> from gyoza.worker.execution_pipeline import execution_pipeline, ExecutionContext
    >>> ctx = ExecutionContext(image="my-image", inputs={"param": "value"})
    >>> print(execution_pipeline.run(ctx).exit_code)
"""

from gyoza.worker.execution_pipeline.pipeline import Pipeline
from gyoza.worker.execution_pipeline.steps.cleanup_op_dir import cleanup_op_dir
from gyoza.worker.execution_pipeline.steps.complete_oprun import complete_oprun
from gyoza.worker.execution_pipeline.steps.prepare_inputs import PrepareInputs
from gyoza.worker.execution_pipeline.steps.pull_latest_image import pull_latest_image
from gyoza.worker.execution_pipeline.steps.run_container import RunContainer
from gyoza.worker.execution_pipeline.steps.start_oprun import start_oprun
from gyoza.worker.execution_pipeline.types import ExecutionContext, Step

execution_pipeline = Pipeline(
    [
        PrepareInputs(),
        pull_latest_image,
        start_oprun,
        RunContainer(),
        complete_oprun,
        cleanup_op_dir,
    ]
)
"""The way of every op run; the outermost layer hands it to the worker."""

__all__ = [
    "ExecutionContext",
    "Pipeline",
    "PrepareInputs",
    "RunContainer",
    "Step",
    "cleanup_op_dir",
    "complete_oprun",
    "execution_pipeline",
    "pull_latest_image",
    "start_oprun",
]
