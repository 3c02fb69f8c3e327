"""A cancel stops a run at once, in every phase, and is never reported as a failure."""

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.runner.active_runs import CancelReason
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever


async def say_goodbye_when_asked(container: FakeContainer) -> int:
    await container.stdout(b'::gyoza::{"type": "PROGRESS", "msg": 1}\n')
    await container.stop_asked.wait()
    await container.stdout(b'::gyoza::{"type": "INFO", "msg": "goodbye"}\n')
    return 0


async def test_a_cancelled_run_is_stopped_and_never_reported_as_failed(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    with trio.fail_after(10):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            server.cancel("run-1")
            await end_of(worker, "run-1")
            assert worker.active.free_slots == 4
    assert [e["type"] for e in server.events] == ["STARTED"]
    assert not engine.containers
    assert not list(worker.settings.work_dir.iterdir())


async def test_what_a_container_says_in_its_grace_period_still_arrives(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("polite", say_goodbye_when_asked, handles_stop=True)
    server.submit("run-1", "polite")
    with trio.fail_after(10):
        async with start_worker() as worker:
            await server.wait_for_event("PROGRESS", "run-1")
            worker.active.trip_all(CancelReason.SHUTDOWN)
            told = await server.wait_for_event("INFO", "run-1")
            await end_of(worker, "run-1")
    assert told["msg"] == "goodbye"
    assert not engine.containers


@pytest.mark.parametrize("phase", ["create", "start", "remove", "pull", "attach"])
async def test_a_cancel_in_any_phase_leaves_nothing_behind(
    phase: str, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick", local=phase != "pull")
    with trio.fail_after(10):
        async with start_worker() as worker:
            with engine.hold(phase) as gate:
                server.submit("run-1", "quick")
                await gate.reached.wait()
                server.cancel("run-1")
                await server.wait_until(lambda: worker.context.is_run_cancelled("run-1"))
            await end_of(worker, "run-1")
    assert "FAILED" not in [e["type"] for e in server.events]
    assert not engine.containers
    assert not list(worker.settings.work_dir.iterdir())


async def test_a_container_that_ignores_the_signal_is_killed_after_the_grace_period(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("stubborn", sleep_for_ever, handles_stop=True)
    server.submit("run-1", "stubborn")
    with trio.fail_after(10):
        async with start_worker(grace_s=0.05) as worker:
            await server.wait_for_event("STARTED", "run-1")
            server.cancel("run-1")
            await end_of(worker, "run-1")
    assert [method for method, _ in engine.calls if method in ("ask_to_stop", "kill")] == [
        "ask_to_stop",
        "kill",
    ]
    assert not engine.containers


async def test_without_grace_a_container_is_killed_at_once(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("stubborn", sleep_for_ever, handles_stop=True)
    server.submit("run-1", "stubborn")
    with trio.fail_after(10):
        async with start_worker(grace_s=0) as worker:
            await server.wait_for_event("STARTED", "run-1")
            server.cancel("run-1")
            await end_of(worker, "run-1")
    assert "ask_to_stop" not in [method for method, _ in engine.calls]


async def test_a_run_cancelled_before_its_start_starts_no_container(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    with trio.fail_after(10):
        async with start_worker() as worker:
            with engine.hold("pull") as gate:
                server.submit("run-1", "quick")
                await gate.reached.wait()
                server.runs["run-1"]["state"] = "COMPLETED"  # the worker only hears it at STARTED
            await end_of(worker, "run-1")
    assert "create" not in [method for method, _ in engine.calls]
    assert not server.events


async def test_a_run_that_another_worker_has_is_stopped_here(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    with trio.fail_after(10):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            server.runs["run-1"]["worker_id"] = "another"
            await end_of(worker, "run-1")
    assert [e["type"] for e in server.events] == ["STARTED"]
    assert not engine.containers
