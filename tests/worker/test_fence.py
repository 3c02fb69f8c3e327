"""A worker that fences itself in stops its runs when the server has been away too long."""

import logging
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from gyoza.models import OpRun
from gyoza.testing import FakeContainerEngine
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.errors import EngineError
from gyoza.worker.run_record import RunRecord
from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.fence import fence
from gyoza.worker.runner.readiness import Obstacle
from gyoza.worker.runner.worker import Worker
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker
from tests.worker.programs import sleep_for_ever
from tests.worker.still_worker import a_run, open_still_worker


def answer(worker: Worker) -> None:
    """Let a heartbeat be answered now."""
    worker.contact.note(trio.current_time(), None)


@pytest.mark.row("fence-running")
async def test_runs_are_stopped_once_no_heartbeat_was_answered_for_that_long(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, fence_after_s=40) as (worker, _):
        run = worker.active.add(a_run())
        worker.ready.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fence, worker)
            await trio.sleep(39)
            answer(worker)
            await trio.sleep(39)
            assert run.reason is None
            await trio.sleep(2)
            assert run.reason is CancelReason.FENCED
            assert run.scope.cancel_called
            assert worker.readiness.blocked_by(Obstacle.FENCE)
            await trio.sleep(1000)
            assert worker.readiness.blocked_by(Obstacle.FENCE)
            answer(worker)
            await worker.readiness.wait()
            nursery.cancel_scope.cancel()
        worker.active.remove(run)


async def test_the_fence_counts_from_when_the_answered_heartbeat_was_sent(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, fence_after_s=40) as (worker, _):
        worker.ready.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fence, worker)
            sent_at = trio.current_time()
            await trio.sleep(30)
            worker.contact.note(sent_at, 60)
            await trio.sleep(11)
            assert worker.readiness.blocked_by(Obstacle.FENCE)
            nursery.cancel_scope.cancel()


async def test_by_default_nothing_is_fenced(mock_clock: MockClock, tmp_path: Path) -> None:
    async with open_still_worker(mock_clock, tmp_path) as (worker, _):
        await fence(worker)


async def test_a_fenced_worker_that_leaves_waits_for_nobody(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, fence_after_s=40) as (worker, _):
        worker.ready.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fence, worker)
            await trio.sleep(41)
            worker.drain()
        await worker.readiness.wait()


async def left_by_an_earlier_start(engine: FakeContainerEngine, *run_ids: str) -> list[str]:
    """Start containers that no task attends to; return their ids."""
    engine.add_image("sleeper", sleep_for_ever)
    ids: list[str] = []
    for run_id in run_ids:
        identity = ContainerIdentity("w1", run_id, 1)
        spec = ContainerSpec(name=identity.name, image="sleeper", labels=identity.labels)
        ids.append(await engine.create(spec))
        await engine.start(ids[-1])
    return ids


async def test_what_an_earlier_start_left_running_is_fenced_too(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, fence_after_s=40) as (worker, engine):
        first, second, gone = await left_by_an_earlier_start(engine, "run-1", "run-2", "run-3")
        await engine.kill(gone)
        await engine.wait(gone)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fence, worker)
            await trio.sleep(41)
            assert {c.state for c in engine.containers.values()} == {"exited"}
            assert engine.containers[first].exit_code == 143
            assert engine.containers[second].exit_code == 143
            answer(worker)
            await worker.readiness.wait()
            nursery.cancel_scope.cancel()
        engine.containers.clear()


async def test_a_stop_by_the_fence_is_on_record_before_its_signal(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, fence_after_s=40) as (worker, engine):
        (left,) = await left_by_an_earlier_start(engine, "run-1")
        run = OpRun(id="run-1", image="sleeper", current_attempt=1)
        record = RunRecord.create(tmp_path / "run-1.1", run)
        worker.active.add(run).record = record
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fence, worker)
            await engine.wait(left)  # no deadline: the clock would leap to it while a thread writes
            nursery.cancel_scope.cancel()
        assert (record.stopping, record.timed_out) == (True, False)
        record.close()
        engine.containers.clear()


@pytest.mark.parametrize("method", ["list", "ask_to_stop"])
async def test_a_container_that_cannot_be_stopped_is_told_and_the_others_are_stopped(
    mock_clock: MockClock, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_still_worker(mock_clock, tmp_path, fence_after_s=40) as (worker, engine):
        await left_by_an_earlier_start(engine, "run-1", "run-2")
        engine.failures[method] = EngineError("Refused.")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fence, worker)
            await trio.sleep(41)
            nursery.cancel_scope.cancel()
        stopped = [c for c in engine.containers.values() if c.state == "exited"]
        assert len(stopped) == (1 if method == "ask_to_stop" else 0)
    assert "cannot be stopped: Refused." in caplog.text


@pytest.mark.row("fence-running")
async def test_a_fenced_worker_stops_its_containers_and_claims_again_when_the_server_is_back(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    engine.add_image("quick")
    server.submit("run-1", "sleeper")
    with trio.fail_after(200), caplog.at_level(logging.INFO):
        async with start_worker(heartbeat_s=0.05, fence_after_s=0.5) as worker:
            await server.wait_for_event("STARTED", "run-1")
            server.refuse("POST", "/workers/heartbeat", 503, "Away.", times=10_000)
            await worker.active.wait_until_gone("run-1")
            assert not engine.containers
            server.submit("run-2", "quick")
            server.refuse("POST", "/workers/heartbeat", 503, "Away.", times=0)
            await server.wait_for_event("COMPLETED", "run-2")
    assert "No heartbeat has reached the server for 0.5 s" in caplog.text
    assert "runs may be claimed again" in caplog.text
    assert [e["type"] for e in server.events if e["run_id"] == "run-1"] == ["STARTED"]
