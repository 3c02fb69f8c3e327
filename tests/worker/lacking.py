"""What tests of a worker that lacks something share: failures that pass, and a run that lives on.

Importing the fixture `short_backoff` uses it in all tests of a file.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import trio

from gyoza.testing import FakeContainer
from gyoza.worker import backoff
from gyoza.worker.execution_pipeline import Pipeline, execution_pipeline
from gyoza.worker.lacks import NO_THREAD
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of

RUN = "run-1"


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    monkeypatch.setattr(backoff, "CAP_S", 0.05)


def no(number: int) -> OSError:
    """Return the system's refusal."""
    return OSError(number, os.strerror(number), "/some/file")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class Flaky:
    """A function that fails a number of times and then does its work.

    Attributes:
        failed: How often it has failed.
    """

    def __init__(self, function: Callable[..., Any], error: Exception, times: int = 1) -> None:
        self.function = function
        self.error = error
        self.times = times
        self.failed = 0

    def __call__(self, *args: Any) -> Any:
        if self.failed < self.times:
            self.failed += 1
            raise self.error
        return self.function(*args)


class Threads:
    """Whether the system grants threads.

    Attributes:
        refused: It does not.
        missed: Set when some have been refused.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = False
        self.missed = trio.Event()
        self._refusals = 0
        self._run_sync = trio.to_thread.run_sync
        monkeypatch.setattr(trio.to_thread, "run_sync", self)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if self.refused:
            self._refusals += 1
            if self._refusals > 5:
                self.missed.set()
            raise RuntimeError(NO_THREAD)
        return await self._run_sync(*args, **kwargs)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


async def succeed(container: FakeContainer) -> int:
    await container.stdout(b"words\n")
    container.path(container.env["GYOZA_OUTPUT_PATH"]).write_text('{"n": 1}')
    return 0


async def complete(
    server: SmallServer, start_worker: StartWorker, pipeline: Pipeline = execution_pipeline
) -> None:
    """Have the run executed, however often it comes back, and see that nothing is left of it."""
    server.takes_back = True
    with trio.fail_after(200):
        async with start_worker(pipeline=pipeline) as worker:
            server.submit(RUN, "quick")
            await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert not list(worker.settings.work_dir.iterdir())
