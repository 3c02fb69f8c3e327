"""A worker that lacks something gives its runs back, or waits for it; no run fails for that."""

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gyoza.models import OpRun, ReleaseReason
from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker import backoff
from gyoza.worker.containers.docker_client import own_errors
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.errors import (
    EngineError,
    EngineUnavailable,
    ImagePullError,
    OpDirNotRemoved,
    OutputInvalid,
    WorkerLacks,
)
from gyoza.worker.execution_pipeline import ExecutionContext, Pipeline, execution_pipeline
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.steps import cleanup_op_dir, complete_oprun, prepare_inputs
from gyoza.worker.lacks import NO_THREAD, lack_of
from gyoza.worker.logs.spool import LogSpool
from gyoza.worker.run_record import RunRecord
from gyoza.worker.runner import main, run_task
from gyoza.worker.runner.readiness import Obstacle, Readiness
from gyoza.worker.runner.shortage import Shortage
from gyoza.worker.runner.supervisor import run_worker
from gyoza.worker.settings import WorkerSettings
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.earlier_life import EarlierLife, earlier

__all__ = ["earlier"]

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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (no(errno.EMFILE), "open files"),
        (no(errno.ENFILE), "open files"),
        (no(errno.ENOMEM), "memory"),
        (MemoryError(), "memory"),
        (RuntimeError(NO_THREAD), "threads"),
        (no(errno.ENOSPC), "room on a disk"),
        (no(errno.EDQUOT), "room on a disk"),
        (no(errno.EROFS), "a disk that can be written"),
        (no(errno.EIO), "a disk that works"),
        (caused(OpDirNotRemoved("no"), no(errno.EMFILE)), "open files"),
        (EngineError("mkdir x: no space left on device"), "room on a disk"),
        (EngineError("fork/exec runc: Resource temporarily unavailable."), "processes or threads"),
        (caused(EngineError("too many open files"), no(errno.ENOMEM)), "memory"),
        (no(errno.EACCES), None),
        (RuntimeError("something else"), None),
        (ValueError("no space left on device"), None),
        (EngineError('exec: "nope": executable file not found'), None),
    ],
)
def test_what_is_lacking_is_told_by_the_root_of_an_error(
    error: Exception, words: str | None
) -> None:
    lack = lack_of(error)
    assert lack is None if words is None else lack is not None and lack.startswith(words)


PLACES: dict[str, tuple[Any, str]] = {
    "record": (RunRecord, "create"),
    "directory": (prepare_inputs, "make_op_dir"),
    "inputs": (prepare_inputs, "write_inputs"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "error", [no(errno.EMFILE), no(errno.ENOSPC), no(errno.EIO), MemoryError()], ids=repr
)
async def test_a_run_whose_files_cannot_be_made_is_given_back_and_completes_later(
    place: str,
    error: Exception,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("quick", succeed)
    owner, name = PLACES[place]
    monkeypatch.setattr(owner, name, Flaky(getattr(owner, name), error, times=2))
    await complete(server, start_worker)
    assert [r["reason"] for r in server.releases] == [ReleaseReason.WORKER_LACKS] * 2
    assert (
        server.told == ["STARTED", "COMPLETED"]
        if place == "record"
        else "FAILED" not in server.told
    )
    assert server.events[-1]["attempt"] == 3
    assert caplog.text.count("is given back: This worker lacks") == 2


ENGINE_SAYS: list[tuple[str, EngineError]] = [
    ("pull", ImagePullError("Cannot pull quick: write /var: no space left on device.")),
    ("create", EngineError("The Docker Engine refused: mkdir: no space left on device.")),
    ("create", EngineError("The Docker Engine refused: cannot allocate memory.")),
    ("start", EngineError("The Docker Engine refused: pipe2: too many open files.")),
    ("start", EngineError("The Docker Engine refused: resource temporarily unavailable.")),
]


@pytest.mark.parametrize(("method", "error"), ENGINE_SAYS)
async def test_a_run_for_which_the_engine_lacks_something_is_given_back_and_completes_later(
    method: str,
    error: EngineError,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    engine.add_image("quick", succeed, local=False)
    engine.failures[method] = error
    await complete(server, start_worker)
    assert [r["reason"] for r in server.releases] == [ReleaseReason.WORKER_LACKS]
    assert "FAILED" not in server.told
    assert not engine.containers


@pytest.mark.parametrize("method", ["pull", "create", "attach", "start"])
async def test_a_run_that_the_engine_cannot_be_asked_for_is_given_back_and_completes_later(
    method: str, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick", succeed)
    unheard = EngineUnavailable("The connection to the engine broke.")
    unheard.__cause__ = no(errno.EMFILE)
    engine.failures[method] = unheard
    await complete(server, start_worker)
    assert [r["reason"] for r in server.releases] == [ReleaseReason.WORKER_LACKS]
    assert "FAILED" not in server.told
    assert not engine.containers


async def test_a_run_without_threads_is_given_back_and_completes_later(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker, threads: Threads
) -> None:
    engine.add_image("quick", succeed)
    given_back = trio.Event()

    async def want_threads(ctx: ExecutionContext) -> ExecutionContext:
        threads.refused = not server.releases
        return ctx

    def plain(ctx: ExecutionContext) -> ExecutionContext:
        return ctx

    async def grant_threads() -> None:
        await server.wait_until(lambda: bool(server.releases))
        threads.refused = False
        given_back.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(grant_threads)
        pipeline = Pipeline([want_threads, plain, *execution_pipeline.steps])
        await complete(server, start_worker, pipeline)
    assert given_back.is_set()
    assert [r["reason"] for r in server.releases] == [ReleaseReason.WORKER_LACKS]


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


@pytest.mark.parametrize("error", [no(errno.ENOSPC), MemoryError(), RuntimeError(NO_THREAD)])
@pytest.mark.parametrize("plain", [True, False])
async def test_what_a_step_of_ones_own_lacks_fails_the_run(
    error: Exception, plain: bool, server: SmallServer, start_worker: StartWorker
) -> None:
    def fail(ctx: ExecutionContext) -> ExecutionContext:
        raise error

    async def fail_in_trio(ctx: ExecutionContext) -> ExecutionContext:
        raise error

    server.submit(RUN, "any")
    with trio.fail_after(200):
        async with start_worker(pipeline=Pipeline([fail if plain else fail_in_trio])) as worker:
            failed = await server.wait_for_event("FAILED", RUN)
            await end_of(worker, RUN)
    assert failed["payload"]["reason"] == "INTERNAL"


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


def test_a_record_that_cannot_be_begun_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise no(errno.ENOSPC)

    monkeypatch.setattr(LogSpool, "__init__", full)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        RunRecord.create(tmp_path / "run-1.1", OpRun(RUN))
    assert len(os.listdir("/proc/self/fd")) == before


async def test_claims_wait_longer_after_each_shortage_in_a_row(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.5)
    monkeypatch.setattr(backoff, "CAP_S", 30)
    monkeypatch.setattr(backoff, "spread", float)
    readiness = Readiness()
    shortage = Shortage(readiness)

    async def waited(times: int = 1) -> float:
        for _ in range(times):
            shortage.meet()
        begun = trio.current_time()
        await trio.lowlevel.checkpoint()
        await readiness.wait({Obstacle.SHORTAGE})
        return trio.current_time() - begun

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shortage.serve)
        assert not shortage.lasts
        assert [await waited() for _ in range(4)] == [0.5, 1, 2, 4]
        assert shortage.lasts
        shortage.end()
        assert not shortage.lasts
        assert await waited(times=3) == 0.5
        nursery.cancel_scope.cancel()


async def test_a_worker_short_of_something_tries_with_one_run(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.add_image("quick", succeed)
    monkeypatch.setattr(RunRecord, "create", Flaky(RunRecord.create, no(errno.EMFILE)))
    await complete(server, start_worker)
    asked = [claim["max_runs"] for claim in server.claims if claim]
    assert asked[0] == 4
    assert 1 in asked
    assert asked[-1] > 1


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
