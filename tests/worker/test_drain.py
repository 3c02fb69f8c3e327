"""The first signal drains, the second stops; nothing is lost either way."""

import logging
import signal
from dataclasses import replace

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.main import obey_signals
from gyoza.worker.runner.supervisor import open_worker, supervise
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import Resources, WorkerContext
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker
from tests.worker.programs import sleep_for_ever


async def test_a_draining_worker_lets_its_runs_finish_and_claims_no_more(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    finish = trio.Event()

    async def until_told(container: FakeContainer) -> int:
        await finish.wait()
        return 0

    engine.add_image("patient", until_told)
    server.submit("run-1", "patient")
    with trio.fail_after(10):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            worker.drain()
            await server.wait_until(lambda: server.heartbeats[-1]["draining"])
            server.submit("run-2", "patient")
            finish.set()
    assert server.runs["run-1"]["state"] == "COMPLETED"
    # A claim in flight may still have got it, to be given back unstarted.
    assert {e["run_id"] for e in server.events} == {"run-1"}
    assert server.heartbeats[-1]["running_ops"] == []


async def test_after_the_drain_timeout_runs_are_stopped_and_given_back(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    with trio.fail_after(10):
        async with start_worker(drain_timeout_s=0):
            await server.wait_for_event("STARTED", "run-1")
    assert "POST /runs/run-1/release" in server.requests
    assert [e["type"] for e in server.events] == ["STARTED"]
    assert not engine.containers


async def test_the_second_signal_stops_the_runs_and_gives_them_back(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    context = WorkerContext(resources=Resources())
    with trio.fail_after(10):
        async with (
            open_worker(settings, context=context, engine=engine) as worker,
            trio.open_nursery() as process,
        ):
            await process.start(obey_signals, worker)
            process.start_soon(supervise, worker)
            await server.wait_for_event("STARTED", "run-1")
            signal.raise_signal(signal.SIGTERM)
            await worker.draining.wait()
            signal.raise_signal(signal.SIGINT)
            await server.wait_until(lambda: "POST /runs/run-1/release" in server.requests)
            await worker.active.wait_until_gone("run-1")
            process.cancel_scope.cancel()
    assert not engine.containers


async def test_a_worker_whose_nursery_is_cancelled_gives_its_runs_back(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    with trio.fail_after(10):
        async with open_worker(settings, context=WorkerContext(), engine=engine) as worker:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(supervise, worker)
                    await server.wait_for_event("STARTED", "run-1")
                    scope.cancel()
    assert "POST /runs/run-1/release" in server.requests
    assert not engine.containers


async def test_a_run_claimed_while_draining_is_given_back_unstarted(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    with trio.fail_after(10):
        async with start_worker() as worker:
            server.on_claim = worker.drain
            server.submit("run-1", "quick")
            await server.wait_until(lambda: "POST /runs/run-1/release" in server.requests)
    assert not server.events


async def test_a_drain_ends_a_worker_that_never_reached_its_server(
    engine: FakeContainerEngine,
    settings: WorkerSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = replace(settings, server_url="http://127.0.0.1:9")
    with trio.fail_after(20), caplog.at_level(logging.INFO):
        async with (
            open_worker(away, context=WorkerContext(), engine=engine) as worker,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(supervise, worker)
            worker.drain()
    assert "does not answer" in caplog.text
    assert "was not told that this worker goes" in caplog.text


async def test_a_reason_is_never_replaced_by_a_later_one(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    with trio.fail_after(10):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            worker.active.trip_all(CancelReason.LEASE_LOST)
            worker.active.trip_all(CancelReason.SHUTDOWN)
            await worker.active.wait_until_gone("run-1")
    assert "POST /runs/run-1/release" not in server.requests
