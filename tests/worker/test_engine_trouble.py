"""An engine that goes away means "look again": runs wait for it, and go on from what it has."""

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker import backoff
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.errors import EngineError
from gyoza.worker.runner.orphan_sweep import OrphanSweep
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever

RUN = "run-1"


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    monkeypatch.setattr(backoff, "CAP_S", 0.05)


class Slow:
    """A program that says something, waits to be told to go on, and says the rest."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.go_on = trio.Event()
        self.starts = 0

    async def __call__(self, container: FakeContainer) -> int:
        self.starts += 1
        await container.stdout(b"one\n")
        self.begun.set()
        await self.go_on.wait()
        await container.stdout(b"two\n")
        return 0


@pytest.fixture
def program(engine: FakeContainerEngine) -> Slow:
    """What the image `slow` does."""
    program = Slow()
    engine.add_image("slow", program)
    return program


def submit(server: SmallServer, image: str) -> None:
    server.keeps_logs = True
    server.submit(RUN, image)


@pytest.mark.parametrize("method", ["create", "start"])
async def test_a_call_whose_answer_is_lost_is_not_done_twice(
    method: str,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    program: Slow,
) -> None:
    program.go_on.set()
    engine.lost_answers.add(method)
    submit(server, "slow")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert program.starts == 1
    assert server.logs[RUN] == "one\ntwo\n"
    assert not engine.containers


@pytest.mark.row("engine-away")
@pytest.mark.parametrize("phase", ["pull", "create", "attach"])
async def test_an_engine_that_is_away_when_a_run_begins_only_delays_it(
    phase: str,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    program: Slow,
) -> None:
    program.go_on.set()
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold(phase) as gate:
                submit(server, "slow")
                await gate.reached.wait()
                engine.go_away()
            await server.wait_until(lambda: "waits for the engine" in caplog.text)
            engine.come_back()
            await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert server.told == ["STARTED", "COMPLETED"]
    assert program.starts == 1


async def test_a_container_that_may_have_been_started_is_not_started_again(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    program: Slow,
) -> None:
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold("start") as gate:
                submit(server, "slow")
                await gate.reached.wait()
                engine.go_away()
            await server.wait_until(lambda: "waits for the engine" in caplog.text)
            engine.come_back()
            await end_of(worker, RUN)
    assert server.told == ["STARTED"]
    assert f"POST /runs/{RUN}/release" in server.requests
    assert not engine.containers


@pytest.mark.row("engine-live-restore")
async def test_a_container_that_runs_on_while_the_engine_is_away_is_followed_to_its_end(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker, program: Slow
) -> None:
    submit(server, "slow")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await program.begun.wait()
            engine.go_away()
            engine.come_back()
            program.go_on.set()
            await end_of(worker, RUN)
    assert server.told == ["STARTED", "COMPLETED"]
    assert server.logs[RUN] == "one\ntwo\n"


@pytest.mark.row("engine-live-restore")
async def test_a_container_that_ended_well_while_the_engine_was_away_completes(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker, program: Slow
) -> None:
    submit(server, "slow")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await program.begun.wait()
            [container] = engine.containers.values()
            engine.go_away()
            program.go_on.set()
            await container.ended.wait()
            engine.come_back()
            await end_of(worker, RUN)
    assert server.told == ["STARTED", "COMPLETED"]
    assert server.logs[RUN] == "one\ntwo\n"


@pytest.mark.parametrize("length", [3, 20_000])
async def test_a_line_that_an_engine_loses_as_it_goes_down_costs_nothing_else(
    length: int, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    go_on = [trio.Event(), trio.Event()]

    async def write(container: FakeContainer) -> int:
        await container.stdout(b"one\n" + b"x" * length)
        await go_on[0].wait()
        await container.stdout(b"z" * 16 * 1024)  # a piece that is kept before its line is complete
        await go_on[1].wait()
        await container.stdout(b"y\nlast\n")
        return 0

    engine.add_image("writing", write)
    submit(server, "writing")
    with trio.fail_after(200):
        async with start_worker() as worker:
            for written, event in zip(("x" * length, "z" * 16 * 1024), go_on, strict=True):
                await server.wait_until(lambda end=written: server.logs.get(RUN, "").endswith(end))
                engine.go_away(loses_unfinished_lines=True)
                engine.come_back()
                event.set()
            await end_of(worker, RUN)
    assert server.logs[RUN] == "one\n" + "x" * length + "z" * 16 * 1024 + "y\nlast\n"


@pytest.mark.row("engine-restart")
@pytest.mark.parametrize("exit_code", [137, 143, 255])
async def test_a_run_whose_container_the_engine_took_along_is_given_back(
    exit_code: int, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold("wait") as gate:
                submit(server, "sleeper")
                await gate.reached.wait()
            [container] = engine.containers.values()
            while not container.news.statistics().tasks_waiting:
                await trio.lowlevel.checkpoint()
            engine.go_away()
            engine.come_back(containers_end_with=exit_code)
            await end_of(worker, RUN)
    assert server.told == ["STARTED"]
    assert f"POST /runs/{RUN}/release" in server.requests
    assert not engine.containers
    assert not list(worker.settings.work_dir.iterdir())


@pytest.mark.row("engine-stopping")
async def test_a_cancel_while_the_engine_is_away_is_carried_out_when_it_is_back(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker, program: Slow
) -> None:
    submit(server, "slow")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await program.begun.wait()
            engine.go_away()
            server.cancel(RUN)
            await server.wait_until(lambda: worker.context.is_run_cancelled(RUN))
            engine.come_back()
            await end_of(worker, RUN)
    assert server.told == ["STARTED"]
    assert not engine.containers
    assert not list(worker.settings.work_dir.iterdir())


async def test_a_run_that_waits_for_the_engine_can_be_cancelled(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("slow", Slow())
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold("start") as gate:
                submit(server, "slow")
                await gate.reached.wait()
                engine.go_away()
            await server.wait_until(lambda: engine.calls.count(("list", "")) > 1)
            server.cancel(RUN)
            await server.wait_until(lambda: worker.context.is_run_cancelled(RUN))
            engine.come_back()
            await end_of(worker, RUN)
    assert server.told == ["STARTED"]
    assert not engine.containers


@pytest.mark.row("engine-stopping")
async def test_a_container_that_cannot_be_removed_leaves_its_directory_to_the_next_start(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gyoza.worker.execution_pipeline.op_container.ENGINE_S", 0.1)
    engine.add_image("sleeper", sleep_for_ever)
    with trio.fail_after(200):
        async with start_worker(grace_s=0.05) as worker:
            with engine.hold("wait") as gate:
                submit(server, "sleeper")
                await gate.reached.wait()
            engine.go_away()
            server.cancel(RUN)
            await end_of(worker, RUN)
            assert [path.name for path in worker.settings.work_dir.iterdir()] == [f"{RUN}.1"]
        engine.come_back()
        async with start_worker() as worker:
            await end_of(worker, RUN)
    assert not engine.containers
    assert not list(worker.settings.work_dir.iterdir())


async def test_a_removal_that_the_engine_refuses_leaves_the_container_to_the_sweep(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    engine.failures["remove"] = EngineError("The device is busy.")
    submit(server, "quick")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
            assert [path.name for path in worker.settings.work_dir.iterdir()] == [f"{RUN}.1"]
            sweep = OrphanSweep(worker)
            await sweep.look()
            await sweep.look()
            assert not engine.containers
            assert not list(worker.settings.work_dir.iterdir())


async def test_a_container_that_an_engine_makes_too_late_is_taken(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold("create") as gate:
                submit(server, "quick")
                await gate.reached.wait()
                identity = ContainerIdentity("w1", RUN, 1)
                spec = ContainerSpec(name=identity.name, image="quick", labels=identity.labels)
                engine.leave_behind(spec, "created")
                engine.failures["create"] = EngineError("The name is in use.")
            await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert not engine.containers


async def test_a_run_that_can_have_no_directory_is_given_back(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("quick")
    with trio.fail_after(200):
        async with start_worker() as worker:
            (worker.settings.work_dir / f"{RUN}.1").write_text("in the way")
            submit(server, "quick")
            await server.wait_until(lambda: f"POST /runs/{RUN}/release" in server.requests)
            await end_of(worker, RUN)
    assert not server.events
    assert "lacks a directory for it" in caplog.text
