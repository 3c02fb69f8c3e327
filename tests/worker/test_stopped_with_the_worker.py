"""A worker that goes or fences itself in gives its runs back, and loses no result that it has."""

from pathlib import Path

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.runner import active_runs, run_task
from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.supervisor import open_worker, supervise
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import WorkerContext
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever
from tests.worker.stopping import (
    EVENTS,
    LOGS,
    RELEASE,
    RUN,
    assert_nothing_is_left,
    called,
    held_after_the_exit,
    short_waits,
)

__all__ = ["short_waits"]


@pytest.mark.row("shutdown-running", "fence-running")
@pytest.mark.parametrize("reason", [CancelReason.SHUTDOWN, CancelReason.FENCED])
@pytest.mark.parametrize("phase", ["pull", "create", "attach", "start", "wait"])
async def test_a_run_is_given_back_from_every_phase_before_its_containers_exit(
    phase: str,
    reason: CancelReason,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold(phase) as gate:
                server.submit(RUN, "sleeper")
                await gate.reached.wait()
                worker.active.trip_all(reason)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert RELEASE in server.requests
    assert "FAILED" not in server.told
    ran = phase in ("start", "wait")
    assert called(engine, "ask_to_stop", "kill") == (["ask_to_stop"] if ran else [])


@pytest.mark.row("shutdown-running")
async def test_a_run_that_cannot_be_given_back_is_left_to_its_lease(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit(RUN, "sleeper")
    with trio.fail_after(200), caplog.at_level("INFO"):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", RUN)
            server.refuse("POST", RELEASE.removeprefix("POST "), 503, "Away.")
            worker.active.trip_all(CancelReason.SHUTDOWN)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]


@pytest.mark.row("shutdown-exited", "fence-exited")
@pytest.mark.parametrize("reason", [CancelReason.SHUTDOWN, CancelReason.FENCED])
@pytest.mark.parametrize("point", ["remove", "outputs", "log", "report"])
async def test_a_run_whose_container_has_exited_is_reported_and_not_given_back(
    point: str,
    reason: CancelReason,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(active_runs, "REPORT_S", 10)
    monkeypatch.setattr(run_task, "FLUSH_S", 10)
    with trio.fail_after(200):
        async with start_worker() as worker:
            async with held_after_the_exit(point, server, engine, monkeypatch):
                worker.active.trip_all(reason)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED", "COMPLETED"]
    assert server.events[-1]["payload"] == {"n": 1}
    assert server.logs[RUN] == "words\n"
    assert RELEASE not in server.requests


@pytest.mark.row("shutdown-unheard")
@pytest.mark.parametrize("point", ["remove", "log", "report"])
async def test_a_result_that_the_server_does_not_take_in_time_is_reported_by_the_next_start(
    point: str,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with trio.fail_after(200):
        async with start_worker() as worker:
            async with held_after_the_exit(point, server, engine, monkeypatch):
                server.refuse("POST", EVENTS, 503, "Away.", times=10_000)
                server.refuse("POST", LOGS, 503, "Away.", times=10_000)
                worker.active.trip_all(CancelReason.SHUTDOWN)
                if point != "remove":
                    await end_of(worker, RUN)
            await end_of(worker, RUN)
            [left] = worker.settings.work_dir.iterdir()
            assert left.name == f"{RUN}.1"
            assert not engine.containers
        assert server.told == ["STARTED"]
        server.refuse("POST", EVENTS, 503, "Away.", times=0)
        server.refuse("POST", LOGS, 503, "Away.", times=0)
        async with start_worker() as worker:
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED", "COMPLETED"]
    assert server.events[-1]["payload"] == {"n": 1}
    assert server.logs[RUN] == "words\n"
    assert RELEASE not in server.requests


async def cancel_nursery(
    server: SmallServer,
    engine: FakeContainerEngine,
    settings: WorkerSettings,
    reached: trio.Event,
) -> None:
    """Run a worker, and cancel the nursery around it when that point is reached."""
    async with (
        open_worker(settings, context=WorkerContext(), engine=engine) as worker,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(supervise, worker)
        await reached.wait()
        nursery.cancel_scope.cancel()


def left_in(settings: WorkerSettings) -> list[Path]:
    return list((settings.work_dir / settings.worker_id).iterdir())


@pytest.mark.row("nursery-running")
async def test_a_worker_whose_nursery_is_cancelled_stops_its_runs_and_gives_them_back(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    begun = trio.Event()

    async def say_bye(container: FakeContainer) -> int:
        begun.set()
        await container.stop_asked.wait()
        return 0

    engine.add_image("polite", say_bye, handles_stop=True)
    server.submit(RUN, "polite")
    with trio.fail_after(200):
        await cancel_nursery(server, engine, settings, begun)
    assert RELEASE in server.requests
    assert server.told == ["STARTED"]
    assert called(engine, "ask_to_stop", "kill") == ["ask_to_stop"]
    assert not engine.containers
    assert not left_in(settings)


@pytest.mark.row("nursery-exited")
async def test_a_result_at_hand_when_the_nursery_is_cancelled_is_reported_by_the_next_start(
    server: SmallServer,
    engine: FakeContainerEngine,
    settings: WorkerSettings,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached = trio.Event()
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_nursery, server, engine, settings, reached)
            async with held_after_the_exit("outputs", server, engine, monkeypatch):
                reached.set()
        assert not engine.containers
        assert [directory.name for directory in left_in(settings)] == [f"{RUN}.1"]
        assert RELEASE not in server.requests
        async with start_worker() as worker:
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED", "COMPLETED"]
    assert server.events[-1]["payload"] == {"n": 1}
