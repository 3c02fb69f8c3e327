"""A real worker on the fake engine and the small server."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

from gyoza.testing import FakeContainerEngine, open_fake_engine
from gyoza.worker.execution_pipeline import Pipeline, execution_pipeline
from gyoza.worker.runner import claim_loop, state_refresh
from gyoza.worker.runner.supervisor import run_worker
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import GPU, Resources, WorkerContext
from tests.support.small_server import SmallServer, open_small_server


@pytest.fixture(autouse=True)
def short_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small server is asked at intervals: let them not be the length of the tests."""
    monkeypatch.setattr(claim_loop, "MIN_PERIOD_S", 0.02)
    monkeypatch.setattr(state_refresh, "POLL_S", 0.02)


@pytest.fixture
async def server() -> AsyncGenerator[SmallServer]:
    async with open_small_server() as server:
        yield server


@pytest.fixture
async def engine() -> AsyncGenerator[FakeContainerEngine]:
    async with open_fake_engine() as engine:
        yield engine


class StartWorker(Protocol):
    def __call__(
        self, pipeline: Pipeline = ..., gpus: Sequence[GPU] = ..., **settings: Any
    ) -> AbstractAsyncContextManager[Worker]: ...


@pytest.fixture
def settings(server: SmallServer, tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(
        server_url=server.url,
        api_key="key",
        worker_id="w1",
        work_dir=tmp_path / "work",
        max_concurrency=4,
        grace_s=5,
    )


@pytest.fixture
def start_worker(settings: WorkerSettings, engine: FakeContainerEngine) -> StartWorker:
    """Return a context manager: a registered worker that has drained at the end of the block."""

    @asynccontextmanager
    async def start(
        pipeline: Pipeline = execution_pipeline, gpus: Sequence[GPU] = (), **changes: Any
    ) -> AsyncGenerator[Worker]:
        async with trio.open_nursery() as nursery:
            resources = Resources(cpu_cores=2, ram_mb=1024, gpus=list(gpus))
            context = WorkerContext(resources=resources)

            async def run(task_status: trio.TaskStatus[Worker]) -> None:
                await run_worker(
                    replace(settings, **changes),
                    context=context,
                    engine=engine,
                    pipeline=pipeline,
                    task_status=task_status,
                )

            worker: Worker = await nursery.start(run)
            yield worker
            worker.drain()

    return start


async def end_of(worker: Worker, run_id: str) -> None:
    """Wait until the run is over and its slot free."""
    await worker.active.wait_until_gone(run_id)
