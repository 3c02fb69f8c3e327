"""A worker whose loops do not run: each test runs the one it looks at, by a clock of its own."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from gyoza.models import OpRun
from gyoza.testing import FakeContainerEngine, open_fake_engine
from gyoza.worker.runner.supervisor import open_worker
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import Resources, WorkerContext


@asynccontextmanager
async def open_still_worker(
    clock: MockClock, directory: Path, **changes: Any
) -> AsyncGenerator[tuple[Worker, FakeContainerEngine]]:
    """Open a worker; while the block lasts, time passes only when all tasks wait.

    Opening takes threads, so the clock stands still meanwhile. Nothing speaks to a server.
    """
    settings = WorkerSettings(
        server_url="http://server.invalid", api_key="key", worker_id="w1", work_dir=directory
    )
    async with (
        open_fake_engine() as engine,
        open_worker(
            replace(settings, **changes),
            context=WorkerContext(resources=Resources()),
            engine=engine,
        ) as worker,
    ):
        clock.autojump_threshold = 0
        yield worker, engine
        clock.autojump_threshold = float("inf")


def a_run(number: int = 1) -> OpRun:
    """Return a claimed run."""
    return OpRun.from_dict(
        {"id": f"run-{number}", "image": "sleeper", "state": "ASSIGNED", "current_attempt": 1}
    )


async def passed_s(event: trio.Event, since: float = 0.0) -> float:
    """Return the seconds since a moment of the clock at which the event came."""
    await event.wait()
    return trio.current_time() - since
