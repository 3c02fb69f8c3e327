"""A cancel stops a run at once, in every phase, and is never reported as a failure."""

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.execution_pipeline import ExecutionContext, Pipeline, execution_pipeline
from gyoza.worker.runner.worker import Worker
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever
from tests.worker.stopping import (
    RELEASE,
    RUN,
    assert_nothing_is_left,
    called,
    cancel_here,
    held_after_the_exit,
    short_waits,
    succeed_with_output,
)

__all__ = ["short_waits"]


async def say_goodbye_when_asked(container: FakeContainer) -> int:
    await container.stdout(b'::gyoza::{"type": "PROGRESS", "msg": 1}\n')
    await container.stop_asked.wait()
    await container.stdout(b"goodbye\n")
    return 0


@pytest.mark.row("cancel-running")
async def test_a_run_that_heeds_the_signal_is_never_reported_as_failed(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit(RUN, "sleeper")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", RUN)
            server.cancel(RUN)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]
    assert called(engine, "ask_to_stop", "kill") == ["ask_to_stop"]
    assert RELEASE not in server.requests


@pytest.mark.row("cancel-running")
async def test_the_last_words_of_a_cancelled_run_are_in_its_log(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("polite", say_goodbye_when_asked, handles_stop=True)
    server.keeps_logs = True
    server.submit(RUN, "polite")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("PROGRESS", RUN)
            server.cancel(RUN)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.logs[RUN] == "goodbye\n"
    assert server.told == ["STARTED", "PROGRESS"]


@pytest.mark.row("cancel-pulling")
async def test_a_cancel_while_pulling_ends_the_pull(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick", local=False)
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold("pull") as gate:
                server.submit(RUN, "quick")
                await gate.reached.wait()
                await cancel_here(server, worker)
                await end_of(worker, RUN)
                while gate.opened.statistics().tasks_waiting:
                    await trio.lowlevel.checkpoint()
            assert_nothing_is_left(worker, engine)
    assert not server.events
    assert not called(engine, "create")


@pytest.mark.row("cancel-pulling")
async def test_a_pull_that_another_run_wants_goes_on_without_the_cancelled_one(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick", local=False)
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold("pull") as gate:
                server.submit(RUN, "quick")
                server.submit("run-2", "quick")
                await gate.reached.wait()
                await server.wait_until(lambda: len(worker.active.ids) == 2)
                await cancel_here(server, worker)
                await end_of(worker, RUN)
                assert gate.opened.statistics().tasks_waiting == 1
            await server.wait_for_event("COMPLETED", "run-2")
            await end_of(worker, "run-2")
            assert_nothing_is_left(worker, engine)
    assert called(engine, "pull") == ["pull"]
    assert {event["run_id"] for event in server.events} == {"run-2"}


@pytest.mark.row("cancel-created")
@pytest.mark.parametrize(
    ("phase", "stopped_by"), [("create", []), ("attach", []), ("start", ["ask_to_stop"])]
)
async def test_a_cancel_before_the_container_runs_finishes_only_the_call_under_way(
    phase: str,
    stopped_by: list[str],
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
                await server.wait_for_event("STARTED", RUN)
                await cancel_here(server, worker)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]
    assert called(engine, "start") == (["start"] if phase == "start" else [])
    assert called(engine, "ask_to_stop", "kill") == stopped_by


@pytest.mark.row("cancel-ignored")
@pytest.mark.parametrize(("of_the_run", "of_the_worker"), [(None, 0.05), (0.05, 600)])
async def test_a_container_that_ignores_the_signal_is_killed_after_the_runs_own_grace_period(
    of_the_run: float | None,
    of_the_worker: float,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    engine.add_image("stubborn", sleep_for_ever, handles_stop=True)
    server.submit(RUN, "stubborn", grace_s=of_the_run)
    with trio.fail_after(200):
        async with start_worker(grace_s=of_the_worker) as worker:
            await server.wait_for_event("STARTED", RUN)
            server.cancel(RUN)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert called(engine, "ask_to_stop", "kill") == ["ask_to_stop", "kill"]
    assert server.told == ["STARTED"]


@pytest.mark.row("cancel-ignored")
@pytest.mark.parametrize(("of_the_run", "of_the_worker"), [(None, 0), (0, 600)])
async def test_without_grace_a_container_is_killed_at_once(
    of_the_run: float | None,
    of_the_worker: float,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    engine.add_image("stubborn", sleep_for_ever, handles_stop=True)
    server.submit(RUN, "stubborn", grace_s=of_the_run)
    with trio.fail_after(200):
        async with start_worker(grace_s=of_the_worker) as worker:
            await server.wait_for_event("STARTED", RUN)
            server.cancel(RUN)
            await end_of(worker, RUN)
    assert called(engine, "ask_to_stop", "kill") == ["kill"]


async def test_a_run_may_have_grace_where_its_worker_gives_none(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("polite", say_goodbye_when_asked, handles_stop=True)
    server.submit(RUN, "polite", grace_s=600)
    with trio.fail_after(200):
        async with start_worker(grace_s=0) as worker:
            await server.wait_for_event("PROGRESS", RUN)
            server.cancel(RUN)
            await end_of(worker, RUN)
    assert called(engine, "ask_to_stop", "kill") == ["ask_to_stop"]


@pytest.mark.row("cancel-exiting")
@pytest.mark.parametrize("point", ["wait", "output", "remove", "outputs", "log"])
async def test_a_run_cancelled_after_its_container_exited_is_not_reported(
    point: str,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with trio.fail_after(200):
        async with start_worker() as worker:
            async with held_after_the_exit(point, server, engine, monkeypatch):
                await cancel_here(server, worker)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]
    assert server.logs[RUN] == "words\n"
    assert server.runs[RUN]["state"] == "CANCELLED"


@pytest.mark.row("cancel-exiting")
@pytest.mark.parametrize("exit_code", [0, 1])
async def test_an_exit_and_a_cancel_in_the_same_moment_are_a_cancel(
    exit_code: int, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    workers: list[Worker] = []

    async def exit_when_cancelled(container: FakeContainer) -> int:
        await server.wait_for_event("STARTED", RUN)
        server.cancel(RUN)
        workers[0].active.observe({RUN: "CANCELLED"})
        return exit_code

    engine.add_image("quick", exit_when_cancelled, handles_stop=True)
    with trio.fail_after(200):
        async with start_worker() as worker:
            workers.append(worker)
            server.submit(RUN, "quick")
            await server.wait_for_event("STARTED", RUN)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]


@pytest.mark.row("cancel-reporting")
async def test_a_report_on_its_way_when_the_run_is_cancelled_is_refused_and_left(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with trio.fail_after(200):
        async with start_worker() as worker:
            async with held_after_the_exit("report", server, engine, monkeypatch):
                await cancel_here(server, worker)
                assert worker.active.ids == [RUN]  # until the server has answered the report
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]
    assert RELEASE not in server.requests


@pytest.mark.row("cancel-reported")
async def test_a_cancel_after_the_report_changes_nothing(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    reached, go_on = trio.Event(), trio.Event()

    async def wait_there(ctx: ExecutionContext) -> ExecutionContext:
        reached.set()
        await go_on.wait()
        return ctx

    engine.add_image("quick", succeed_with_output)
    server.submit(RUN, "quick")
    with trio.fail_after(200):
        pipeline = Pipeline([*execution_pipeline.steps, wait_there])
        async with start_worker(pipeline=pipeline) as worker:
            await reached.wait()
            worker.active.observe({RUN: "CANCELLED"})
            go_on.set()
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED", "COMPLETED"]
