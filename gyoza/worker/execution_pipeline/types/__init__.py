"""Types of the execution pipeline."""

from gyoza.worker.execution_pipeline.types.context import ExecutionContext
from gyoza.worker.execution_pipeline.types.step import Step

__all__ = ["ExecutionContext", "Step"]
