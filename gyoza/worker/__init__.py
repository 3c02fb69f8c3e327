"""gyoza worker runtime: heartbeats, claims and the execution of op runs."""

from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.runner import start
from gyoza.worker.worker_context.types import WorkerContext

__all__ = ["ExecutionContext", "WorkerContext", "start"]
