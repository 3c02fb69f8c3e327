"""What tests of stopped runs share: one run, points where it is held, and what must be left of it.

Importing the fixture `short_waits` uses it in all tests of a file.
"""

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from gyoza.client import endpoints
from gyoza.client.retry import REPORT
from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker import backoff
from gyoza.worker.execution_pipeline.steps import complete_oprun
from gyoza.worker.run_record import RunRecord
from gyoza.worker.runner import active_runs, run_task
from gyoza.worker.runner.worker import Worker
from tests.support.small_server import SmallServer

RUN = "run-1"
EVENTS = f"/runs/{RUN}/events"
LOGS = f"/runs/{RUN}/logs"
RELEASE = f"POST /runs/{RUN}/release"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is tried again, and what a worker that leaves waits for, not take long."""
    monkeypatch.setattr(endpoints, "REPORT", replace(REPORT, tries=1))
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    monkeypatch.setattr(backoff, "CAP_S", 0.05)
    monkeypatch.setattr(active_runs, "REPORT_S", 0.5)
    monkeypatch.setattr(run_task, "FLUSH_S", 0.2)


async def succeed_with_output(container: FakeContainer) -> int:
    """Say something, write the outputs, exit well."""
    await container.stdout(b"words\n")
    container.path(container.env["GYOZA_OUTPUT_PATH"]).write_text('{"n": 1}')
    return 0


def called(engine: FakeContainerEngine, *methods: str) -> list[str]:
    """Return the calls of these methods, in order."""
    return [method for method, _ in engine.calls if method in methods]


def assert_nothing_is_left(worker: Worker, engine: FakeContainerEngine) -> None:
    """Check that container and directory are gone and the slot is free."""
    assert not engine.containers
    assert not list(worker.settings.work_dir.iterdir())
    assert worker.active.free_slots == worker.settings.max_concurrency


async def cancel_here(server: SmallServer, worker: Worker) -> None:
    """Cancel the run, and wait until the worker knows."""
    server.cancel(RUN)
    await server.wait_until(lambda: worker.context.is_run_cancelled(RUN))


class Held:
    """A blocking function of the worker that waits in its thread until it is let go on.

    Attributes:
        reached: Set when it has been called.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.reached = trio.Event()
        self._go_on = threading.Event()

    def __call__(self, *args: Any) -> Any:
        if not self._go_on.is_set():
            trio.from_thread.run_sync(self.reached.set)
            assert self._go_on.wait(60)
        return self.function(*args)

    def __enter__(self) -> None:
        """Hold it for as long as the block lasts."""

    def __exit__(self, *error: object) -> None:
        """Let it go on, and never wait again."""
        self._go_on.set()


@asynccontextmanager
async def held_after_the_exit(
    point: str,
    server: SmallServer,
    engine: FakeContainerEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[None]:
    """Submit a run, and hold it after its container's exit for as long as the block lasts.

    Args:
        point: wait: nobody has noticed the exit; output: not all output is taken; remove: the exit
            is recorded; outputs: they are being read; log: the end of the log is on its way;
            report: so is the report, which is recorded.
        server: Gets the run, with the image "quick".
        engine: Executes it.
        monkeypatch: Undoes what holds the run.
    """
    engine.add_image("quick", succeed_with_output)
    server.keeps_logs = True
    async with _HELD[point](server, engine, monkeypatch):
        yield


@asynccontextmanager
async def _held_in_the_engine(
    method: str, server: SmallServer, engine: FakeContainerEngine
) -> AsyncGenerator[None]:
    with engine.hold(method) as gate:
        server.submit(RUN, "quick")
        await gate.reached.wait()
        [container] = engine.containers.values()
        await container.ended.wait()
        yield


@asynccontextmanager
async def _held_in_output(
    server: SmallServer, engine: FakeContainerEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[None]:
    held = Held(RunRecord.note_output)
    monkeypatch.setattr(RunRecord, "note_output", lambda *args: held(*args))  # pyright: ignore
    server.submit(RUN, "quick")
    await held.reached.wait()
    [container] = engine.containers.values()
    await container.ended.wait()
    with held:
        yield


@asynccontextmanager
async def _held_in_outputs(
    server: SmallServer, engine: FakeContainerEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[None]:
    held = Held(complete_oprun.read_outputs)
    monkeypatch.setattr(complete_oprun, "read_outputs", held)
    server.submit(RUN, "quick")
    await held.reached.wait()
    with held:
        yield


@asynccontextmanager
async def _held_in_log(
    server: SmallServer, engine: FakeContainerEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[None]:
    server.refuse("POST", LOGS, 503, "Away.", times=10_000)
    async with _held_in_outputs(server, engine, monkeypatch):
        pass
    refused = server.requests.count(f"POST {LOGS}")
    await server.wait_until(lambda: server.requests.count(f"POST {LOGS}") > refused + 1)
    try:
        yield
    finally:
        server.refuse("POST", LOGS, 503, "Away.", times=0)


@asynccontextmanager
async def _held_in_report(
    server: SmallServer, engine: FakeContainerEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[None]:
    server.refuse("event", "COMPLETED", 503, "Away.", times=10_000)
    server.submit(RUN, "quick")
    await server.wait_until(lambda: server.requests.count(f"POST {EVENTS}") > 1)
    try:
        yield
    finally:
        server.refuse("event", "COMPLETED", 503, "Away.", times=0)


_Hold = Callable[
    [SmallServer, FakeContainerEngine, pytest.MonkeyPatch], AbstractAsyncContextManager[None]
]

_HELD: dict[str, _Hold] = {
    "wait": lambda server, engine, _: _held_in_the_engine("wait", server, engine),
    "output": _held_in_output,
    "remove": lambda server, engine, _: _held_in_the_engine("remove", server, engine),
    "outputs": _held_in_outputs,
    "log": _held_in_log,
    "report": _held_in_report,
}
