"""Once a container has begun, what a worker lacks is waited for; at its start it says so."""

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.containers.docker_client import own_errors
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.errors import (
    EngineUnavailable,
    OpDirNotRemoved,
    OutputInvalid,
    WorkerLacks,
)
from gyoza.worker.execution_pipeline import ExecutionContext, Pipeline, execution_pipeline
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.steps import cleanup_op_dir, complete_oprun
from gyoza.worker.lacks import NO_THREAD, lack_of
from gyoza.worker.run_record import RunRecord
from gyoza.worker.runner import main, run_task
from gyoza.worker.runner.supervisor import run_worker
from gyoza.worker.settings import WorkerSettings
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.earlier_life import EarlierLife, earlier
from tests.worker.lacking import (
    RUN,
    Flaky,
    Threads,
    caused,
    complete,
    no,
    short_backoff,
    succeed,
    threads,
)

__all__ = ["earlier", "short_backoff", "threads"]


async def test_an_engine_that_no_thread_can_ask_counts_as_away(threads: Threads) -> None:
    threads.refused = True
    async with open_docker_engine() as engine:
        with pytest.raises(EngineUnavailable, match="cannot be asked") as caught:
            await engine.find_image("any")
    assert lack_of(caught.value) == "threads"


async def test_a_run_that_has_begun_waits_for_threads(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    threads: Threads,
) -> None:
    async def exhaust(container: FakeContainer) -> int:
        threads.refused = True
        return await succeed(container)

    def plain(ctx: ExecutionContext) -> ExecutionContext:
        ctx.outputs["seen"] = ctx.exit_code
        return ctx

    async def grant_threads() -> None:
        await threads.missed.wait()
        threads.refused = False

    server.keeps_logs = True
    engine.add_image("quick", exhaust)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grant_threads)
        await complete(server, start_worker, Pipeline([execution_pipeline, plain]))
    assert server.told == ["STARTED", "COMPLETED"]
    assert server.events[-1]["payload"] == {"n": 1}
    assert server.logs[RUN] == "words\n"
    assert not server.releases


@pytest.mark.parametrize(
    "error",
    [
        caused(OutputInvalid("The op's output cannot be read."), no(errno.EMFILE)),
        no(errno.ENFILE),
        MemoryError(),
    ],
    ids=repr,
)
async def test_outputs_are_read_as_soon_as_the_worker_has_what_it_takes(
    error: Exception,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("quick", succeed)
    flaky = Flaky(complete_oprun.read_outputs, error, times=3)
    monkeypatch.setattr(complete_oprun, "read_outputs", flaky)
    await complete(server, start_worker)
    assert server.told == ["STARTED", "COMPLETED"]
    assert server.events[-1]["payload"] == {"n": 1}
    assert caplog.text.count(f"Run {RUN} waits: this worker lacks") == 1


@pytest.mark.parametrize("place", [cleanup_op_dir, run_task])
async def test_what_a_run_has_left_is_removed_as_soon_as_the_worker_has_what_it_takes(
    place: Any,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.add_image("quick", succeed)
    error = caused(OpDirNotRemoved("It cannot be removed."), no(errno.EMFILE))
    flaky = Flaky(place.remove_op_dir, error, times=2)
    monkeypatch.setattr(place, "remove_op_dir", flaky)
    await complete(server, start_worker)
    assert flaky.failed == 2
    assert server.told == ["STARTED", "COMPLETED"]


@pytest.mark.parametrize("error", [no(errno.EMFILE), no(errno.EIO)])
async def test_what_cannot_be_read_at_the_start_is_kept_and_the_worker_says_so(
    error: OSError,
    earlier: EarlierLife,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = earlier.claimed()
    record.close()
    monkeypatch.setattr(RunRecord, "load", Flaky(RunRecord.load, error))
    with trio.fail_after(200), pytest.raises(ExceptionGroup) as caught:
        await run_worker(settings, engine=earlier.engine)
    assert caught.group_contains(WorkerLacks, match="This worker lacks")
    assert record.directory.exists()


async def test_a_container_of_an_earlier_life_is_looked_for_until_the_engine_can_be_asked(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    earlier.container(record, state="exited")
    record.note_starting([])
    record.close()
    unheard = EngineUnavailable("The connection to the engine broke.")
    unheard.__cause__ = no(errno.EMFILE)
    earlier.engine.failures["list"] = unheard
    with trio.fail_after(200):
        async with start_worker() as worker:
            await end_of(worker, RUN)
    assert earlier.server.told == ["COMPLETED"]


@pytest.mark.parametrize("error", [no(errno.EMFILE), MemoryError(), RuntimeError(NO_THREAD)])
def test_a_worker_that_cannot_even_start_says_so_in_one_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lack(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(main, "work_until_told", lack)
    with pytest.raises(WorkerLacks, match="This worker lacks"):
        main.run(WorkerSettings())


def test_an_error_at_the_start_that_tells_of_no_lack_is_not_taken_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(main, "work_until_told", broken)
    with pytest.raises(RuntimeError, match="something else"):
        main.run(WorkerSettings())


@pytest.mark.parametrize("begun", [False, True])
def test_a_script_is_told_at_once_what_is_lacking(
    begun: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def read(ctx: ExecutionContext) -> ExecutionContext:
        scope = scope_of(ctx)
        scope.record.started_at = 1.0 if begun else None
        await scope.in_thread(Flaky(str, no(errno.EMFILE)))
        return ctx

    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    with pytest.raises(WorkerLacks, match="open files"):
        Pipeline([read]).run(ExecutionContext())


async def test_a_full_disk_while_a_container_runs_costs_its_log_and_not_the_run(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("quick", succeed)
    monkeypatch.setattr(
        RunRecord, "note_output", Flaky(RunRecord.note_output, no(errno.ENOSPC), 99)
    )
    with caplog.at_level(logging.WARNING):
        await complete(server, start_worker)
    assert server.told == ["STARTED", "COMPLETED"]


def test_an_engine_that_no_memory_is_left_to_ask_counts_as_away() -> None:
    with pytest.raises(EngineUnavailable) as caught, own_errors("here"):
        raise MemoryError
    assert lack_of(caught.value) == "memory"
