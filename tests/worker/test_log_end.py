"""The server is told when it has the whole log of an attempt, however that ended."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from gyoza.client import AsyncGyozaClient
from gyoza.models import OpRun
from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker import backoff
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.logs.spool import LogSpool
from gyoza.worker.reports import logs
from gyoza.worker.reports.logs import LogShipper
from gyoza.worker.run_record import Position, RunRecord
from gyoza.worker.runner import run_task
from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.worker import Worker
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of

RUN = "run-1"
LOGS = f"POST /runs/{RUN}/logs"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    monkeypatch.setattr(backoff, "CAP_S", 0.05)
    monkeypatch.setattr(run_task, "FLUSH_S", 0.2)


class Slow:
    """A program that says something and ends when it is told to."""

    def __init__(self) -> None:
        self.go_on = trio.Event()

    async def __call__(self, container: FakeContainer) -> int:
        await container.stdout(b"words\n")
        await self.go_on.wait()
        return 3


@pytest.fixture
def program(server: SmallServer, engine: FakeContainerEngine) -> Slow:
    """What the run does."""
    program = Slow()
    engine.add_image("slow", program)
    server.keeps_logs = server.takes_back = True
    return program


async def has_text(server: SmallServer) -> None:
    await server.wait_until(lambda: server.logs.get(RUN) == "words\n")


async def ship(record: RunRecord, server: SmallServer) -> None:
    """Ship the log of a run that has ended."""
    async with AsyncGyozaClient(server.url, "key") as client, trio.open_nursery() as nursery:
        identity = ContainerIdentity("w1", RUN, 1)
        shipper = LogShipper(client, identity, record, trio.CapacityLimiter(1))
        nursery.start_soon(shipper.finish)
        with trio.fail_after(200):
            await trio.testing.wait_all_tasks_blocked()
            await shipper.serve()
    assert shipper.done.is_set()
    assert shipper.closed.is_set()
    record.close()


@pytest.mark.parametrize("text", ["", "words\n"])
async def test_the_last_text_tells_that_it_is_the_last(
    text: str, server: SmallServer, tmp_path: Path
) -> None:
    server.keeps_logs = True
    record = RunRecord.create(tmp_path / f"{RUN}.1", OpRun(RUN))
    record.note_output(text, [], Position())
    await ship(record, server)
    assert server.requests == [LOGS]
    assert server.logs[RUN] == text
    assert server.whole_logs == {RUN}


async def test_a_log_that_is_sent_already_is_told_to_be_whole_by_the_next_life(
    server: SmallServer, tmp_path: Path
) -> None:
    server.keeps_logs = True
    server.logs[RUN] = "words\n"
    record = RunRecord.create(tmp_path / f"{RUN}.1", OpRun(RUN))
    record.note_output("words\n", [], Position())
    record.note_sent(log=6)
    record.close()
    await ship(RunRecord.load(record.directory), server)
    assert server.requests == [LOGS]
    assert server.whole_logs == {RUN}


async def test_the_end_of_the_run_does_not_wait_until_the_server_knows_that_its_log_is_whole(
    server: SmallServer, program: Slow, start_worker: StartWorker
) -> None:
    server.submit(RUN, "slow")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await has_text(server)
            server.hide(LOGS, status=521)
            program.go_on.set()
            await server.wait_for_event("FAILED", RUN)
            assert not server.whole_logs
            assert [path.name for path in worker.settings.work_dir.iterdir()] == [f"{RUN}.1"]
            server.reveal()
            await end_of(worker, RUN)
    assert server.whole_logs == {RUN}
    assert not list(worker.settings.work_dir.iterdir())


def cancel(server: SmallServer, worker: Worker) -> None:
    server.cancel(RUN)


def leave(server: SmallServer, worker: Worker) -> None:
    worker.drain()
    worker.active.trip_all(CancelReason.SHUTDOWN)


def lose(server: SmallServer, worker: Worker) -> None:
    worker.active.trip_all(CancelReason.LEASE_LOST)


@pytest.mark.parametrize("stop", [cancel, leave, lose])
async def test_a_run_that_is_stopped_tells_the_end_of_its_log(
    stop: Callable[[SmallServer, Worker], None],
    server: SmallServer,
    program: Slow,
    start_worker: StartWorker,
) -> None:
    server.submit(RUN, "slow")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await has_text(server)
            server.take(RUN)
            stop(server, worker)
            await end_of(worker, RUN)
    assert server.whole_logs == {RUN}
    assert not list(worker.settings.work_dir.iterdir())


async def test_a_run_past_its_time_limit_tells_the_end_of_its_log(
    server: SmallServer, program: Slow, start_worker: StartWorker
) -> None:
    server.submit(RUN, "slow", timeout_s=0.5)
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("FAILED", RUN)
            await end_of(worker, RUN)
    assert server.whole_logs == {RUN}


async def test_a_run_given_back_for_the_engine_tells_the_end_of_its_log(
    server: SmallServer, engine: FakeContainerEngine, program: Slow, start_worker: StartWorker
) -> None:
    server.submit(RUN, "slow")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await has_text(server)
            engine.go_away()
            program.go_on.set()
            engine.come_back(containers_end_with=143)
            await server.wait_until(lambda: bool(server.releases))
            await server.wait_until(lambda: bool(server.whole_logs))
            worker.drain()
            worker.active.trip_all(CancelReason.SHUTDOWN)


@pytest.mark.parametrize("stop", [cancel, leave])
async def test_a_worker_that_leaves_before_the_server_knows_leaves_it_to_the_next_start(
    stop: Callable[[SmallServer, Worker], None],
    server: SmallServer,
    program: Slow,
    start_worker: StartWorker,
) -> None:
    server.submit(RUN, "slow")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await has_text(server)
            server.hide(LOGS, status=521)
            stop(server, worker)
            await server.wait_until(lambda: not worker.tools.engine.containers)  # pyright: ignore
            leave(server, worker)
            await end_of(worker, RUN)
            assert [path.name for path in worker.settings.work_dir.iterdir()] == [f"{RUN}.1"]
            server.take(RUN)
        server.reveal()
        async with start_worker() as worker:
            await end_of(worker, RUN)
    assert server.whole_logs == {RUN}
    assert server.told == ["STARTED"]
    assert not list(worker.settings.work_dir.iterdir())


async def test_a_server_that_fails_at_the_same_text_again_and_again_gets_no_more_of_the_log(
    server: SmallServer,
    program: Slow,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logs, "FAILURES", 3)
    server.refuse("POST", f"/runs/{RUN}/logs", 500, "Broken.")
    program.go_on.set()
    server.submit(RUN, "slow")
    with trio.fail_after(200), caplog.at_level("INFO"):
        async with start_worker() as worker:
            await server.wait_for_event("FAILED", RUN)
            await end_of(worker, RUN)
    assert server.requests.count(LOGS) == 3
    assert "its log is cut: Broken." in caplog.text


async def test_a_log_that_cannot_be_read_is_cut_and_the_run_has_its_end(
    server: SmallServer,
    program: Slow,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(LogSpool, "read", broken)
    program.go_on.set()
    server.submit(RUN, "slow")
    with trio.fail_after(200), caplog.at_level("INFO"):
        async with start_worker() as worker:
            await server.wait_for_event("FAILED", RUN)
            await end_of(worker, RUN)
    assert "its log is cut: [Errno 5]" in caplog.text
    assert not server.whole_logs
