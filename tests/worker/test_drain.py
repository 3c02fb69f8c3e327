"""A worker that ends: at a deadline, after so many runs, or when there is nothing to do."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.drain import enforce_drain_timeout, leave_when_idle
from gyoza.worker.runner.supervisor import open_worker, run_worker, supervise
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import WorkerContext
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker
from tests.worker.programs import sleep_for_ever
from tests.worker.still_worker import a_run, open_still_worker, passed_s


async def test_a_draining_worker_lets_its_runs_finish_and_claims_no_more(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    finish = trio.Event()

    async def until_told(container: FakeContainer) -> int:
        await finish.wait()
        return 0

    engine.add_image("patient", until_told)
    server.submit("run-1", "patient")
    with trio.fail_after(200):
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


@pytest.mark.row("shutdown-running")
async def test_after_the_drain_timeout_runs_are_stopped_and_given_back(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    with trio.fail_after(200):
        async with start_worker(drain_timeout_s=0):
            await server.wait_for_event("STARTED", "run-1")
    assert "POST /runs/run-1/release" in server.requests
    assert [e["type"] for e in server.events] == ["STARTED"]
    assert not engine.containers


@pytest.mark.row("nursery-running")
async def test_a_worker_whose_nursery_is_cancelled_gives_its_runs_back(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    with trio.fail_after(200):
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
    with trio.fail_after(200):
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
    with trio.fail_after(200), caplog.at_level(logging.INFO):
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
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            worker.active.trip_all(CancelReason.LEASE_LOST)
            worker.active.trip_all(CancelReason.SHUTDOWN)
            await worker.active.wait_until_gone("run-1")
    assert "POST /runs/run-1/release" not in server.requests


@pytest.mark.row("shutdown-running")
async def test_runs_have_the_drain_timeout_from_the_signal_on(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, drain_timeout_s=120) as (worker, _):
        run = worker.active.add(a_run())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(enforce_drain_timeout, worker)
            await trio.sleep(1000)
            worker.stop_claiming()  # no signal: no deadline
            await trio.sleep(1000)
            assert run.reason is None
            worker.drain()
            await trio.sleep(119)
            assert run.reason is None
            await trio.sleep(2)
        assert run.reason is CancelReason.SHUTDOWN
        worker.active.remove(run)


async def test_a_worker_leaves_once_it_was_idle_for_so_long(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, idle_exit_s=60) as (worker, _):
        begun_at = trio.current_time()
        taken_up = worker.active.add(a_run(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_when_idle, worker)
            await trio.sleep(100)
            worker.active.remove(taken_up)
            await trio.sleep(59)
            run = worker.active.add(a_run(2))
            worker.note_claimed()
            await trio.sleep(100)
            worker.active.remove(run)
            await trio.sleep(59)
            brief = worker.active.add(a_run(3))
            worker.note_claimed()
            worker.active.remove(brief)
            left_after_s = await passed_s(worker.draining, begun_at)
        assert left_after_s == pytest.approx(100 + 59 + 100 + 59 + 60)
        assert not worker.leaving.is_set()


async def test_a_run_that_came_while_another_ended_keeps_the_worker(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, idle_exit_s=60) as (worker, _):
        first = worker.active.add(a_run(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_when_idle, worker)
            await trio.sleep(1)
            second = worker.active.add(a_run(2))
            worker.active.remove(first)
            await trio.sleep(100)
            assert not worker.draining.is_set()
            worker.active.remove(second)
            await worker.draining.wait()


async def test_without_an_idle_exit_or_after_a_signal_nothing_is_timed(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path) as (worker, _):
        await leave_when_idle(worker)
        assert not worker.draining.is_set()
    async with open_still_worker(mock_clock, tmp_path, idle_exit_s=60) as (worker, _):
        worker.drain()
        await leave_when_idle(worker)


async def test_an_idle_worker_ends_by_itself_and_says_so_to_the_server(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    engine.add_image("quick")
    server.submit("run-1", "quick")
    with trio.fail_after(200):
        await run_worker(replace(settings, idle_exit_s=0.5), engine=engine)
    assert server.runs["run-1"]["state"] == "COMPLETED"
    assert server.heartbeats[-1]["draining"]


@pytest.mark.parametrize("slots", [1, 2, 8])
async def test_no_more_than_max_runs_are_claimed_and_then_the_worker_ends(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings, slots: int
) -> None:
    engine.add_image("quick")
    for number in range(5):
        server.submit(f"run-{number}", "quick")
    with trio.fail_after(200):
        limited = replace(settings, max_runs=3, max_concurrency=slots, drain_timeout_s=0)
        await run_worker(limited, engine=engine)
    states = [run["state"] for run in server.runs.values()]
    assert states == ["COMPLETED"] * 3 + ["PENDING"] * 2
    assert server.heartbeats[-1]["draining"]


async def test_of_more_runs_than_were_asked_for_the_rest_is_given_back(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    engine.add_image("quick")
    server.generous = True
    for number in range(2):
        server.submit(f"run-{number}", "quick")
    with trio.fail_after(200):
        await run_worker(replace(settings, max_runs=1), engine=engine)
    assert {e["run_id"] for e in server.events} == {"run-0"}
    assert "POST /runs/run-1/release" in server.requests


async def test_the_last_heartbeat_of_a_worker_says_that_it_leaves(
    server: SmallServer, start_worker: StartWorker
) -> None:
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_until(lambda: bool(server.heartbeats))
            worker.drain()
    assert [beat["leaving"] for beat in server.heartbeats][-2:] == [False, True]


async def test_a_worker_that_is_drained_at_the_server_says_so_once(
    server: SmallServer, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.drained = True
    with trio.fail_after(200):
        async with start_worker(heartbeat_s=0.01) as worker:
            await server.wait_until(lambda: len(server.heartbeats) > 3)
            server.drained = False
            beats = len(server.heartbeats)
            await server.wait_until(lambda: len(server.heartbeats) > beats + 1)
            worker.drain()
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "is drained at the server" in text]) == 1
    assert len([text for text in said if "gets runs again" in text]) == 1
