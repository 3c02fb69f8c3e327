"""A worker that lacks something before a container has begun gives the run back: none fails."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gyoza.models import OpRun, ReleaseReason
from gyoza.testing import FakeContainerEngine
from gyoza.worker import backoff
from gyoza.worker.errors import (
    EngineError,
    EngineUnavailable,
    ImagePullError,
    OpDirNotRemoved,
)
from gyoza.worker.execution_pipeline import ExecutionContext, Pipeline, execution_pipeline
from gyoza.worker.execution_pipeline.steps import prepare_inputs
from gyoza.worker.lacks import NO_THREAD, lack_of
from gyoza.worker.logs.spool import LogSpool
from gyoza.worker.run_record import RunRecord
from gyoza.worker.runner.readiness import Obstacle, Readiness
from gyoza.worker.runner.shortage import Shortage
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
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

__all__ = ["short_backoff", "threads"]


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
    server.takes_back = True

    def asked() -> list[int]:
        return [claim["max_runs"] for claim in server.claims if claim]  # less those given up

    with trio.fail_after(200):
        async with start_worker() as worker:
            server.submit(RUN, "quick")
            await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
            assert 1 in asked()
            await server.wait_until(lambda: asked()[-1] == 4)


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
