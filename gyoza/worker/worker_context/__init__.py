"""Who this worker is, what it has and what it runs; `worker_context` for the outermost layer."""

import os
from typing import Any

from gyoza.worker.worker_context.types import GPU, Resources, RunningOp, WorkerContext
from gyoza.worker.worker_context.utils import detect_resources

__all__ = ["GPU", "Resources", "RunningOp", "WorkerContext", "detect_resources", "worker_context"]


class _ThisWorker(WorkerContext):
    """The context of this process."""

    # Importing must be quick and must not fail, and asking a GPU driver is neither: `resources` is
    # left unset until somebody looks at it, which is when Python calls `__getattr__`.
    def __init__(self) -> None:
        tags = os.environ.get("GYOZA_WORKER_TAGS", "").split(",")
        super().__init__(
            worker_id=os.environ.get("GYOZA_WORKER_ID", ""),
            tags=[tag.strip() for tag in tags if tag.strip()],
        )
        del self.resources

    def __getattr__(self, name: str) -> Any:
        if name != "resources":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.resources = detect_resources()
        return self.resources


worker_context: WorkerContext = _ThisWorker()
