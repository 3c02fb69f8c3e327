"""The whole system: a real server over loopback HTTP, a real worker, real containers."""

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio

from gyoza.client import AsyncGyozaClient
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.labels import of_worker
from gyoza.worker.runner.supervisor import run_worker
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from tests.images import busybox_image, python_image
from tests.support.proxied import with_news

__all__ = ["busybox_image", "python_image"]

KEY = "a-key-for-tests"


@dataclass
class System:
    """A running server with one worker, and a client of it."""

    url: str
    client: AsyncGyozaClient
    worker: Worker

    async def run(self, image: str, inputs: dict[str, Any] | None = None, **options: Any) -> str:
        """Submit a run and return its id."""
        return (await self.client.create_run(image, inputs or {}, **options))["id"]

    async def until(self, run_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the run once the condition holds, woken by its events."""
        run = await self.client.get_run(run_id)
        while not reached(run):
            run = await with_news(self.client, run)
        return run

    async def end_of(self, run_id: str) -> dict[str, Any]:
        """Return the run once it has ended."""
        return await self.until(run_id, lambda run: run["state"] in ENDS)

    async def end_for_memory(self, image: str, command: list[str], ram_mb: int) -> dict[str, Any]:
        """Return a run that took all memory: the first of which the engine knows that it did.

        A busy engine may lose the kernel's word of it; then nobody knows what has killed the op.
        """
        while True:
            constraints = {"ram_mb": ram_mb}
            run_id = await self.run(image, command=command, constraints=constraints)
            run = await self.end_of(run_id)
            summary = run["execution_summary"]
            if (summary["reason"], summary["exit_code"]) != ("EXIT_CODE", 137):
                return run


ENDS = ("COMPLETED", "FAILED", "CANCELLED")
OpenSystem = Callable[..., AbstractAsyncContextManager[System]]


@pytest.fixture
def open_system(tmp_path: Path) -> OpenSystem:
    """Return a context manager: server and worker; afterwards nothing of them is left."""

    @asynccontextmanager
    async def open_it(
        server: ServerSettings | None = None, tls: ssl.SSLContext | None = None, **settings: Any
    ) -> AsyncGenerator[System]:
        server = server or ServerSettings(
            port=0, database_url=f"sqlite:///{tmp_path}/server.sqlite3", api_key=KEY
        )
        defaults: dict[str, Any] = {
            "api_key": KEY,
            "work_dir": tmp_path / "work",
            "registry_wait_s": 0,
            "worker_id": f"test-{uuid4().hex}",  # other tests use this engine, too
            "max_concurrency": 8,
        }
        worker_settings = WorkerSettings(**(defaults | settings))
        async with trio.open_nursery() as services:
            url: str = await services.start(serve, server)
            async with (
                AsyncGyozaClient(url, KEY, verify=tls) as client,
                trio.open_nursery() as working,
            ):
                settings_here = replace(worker_settings, server_url=url)
                worker: Worker = await working.start(partial(run_worker, settings_here))
                yield System(url, client, worker)
                worker.drain()
            services.cancel_scope.cancel()
        async with open_docker_engine() as engine:
            assert await engine.list(of_worker(worker_settings.worker_id)) == []
        assert not list((tmp_path / "work" / worker_settings.worker_id).iterdir())

    return open_it
