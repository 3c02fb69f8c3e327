"""Each start of a worker says which it is, and gives way to another process with its id."""

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.errors import SettingsError, WorkerTaken
from gyoza.worker.runner.work_dir import hold_work_dir
from gyoza.worker.settings import WorkerSettings
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker

BEAT = ("POST", "/workers/heartbeat")
TAKEN = (409, "Another process is worker w1.")


def told(server: SmallServer) -> list[tuple[str, str | None]]:
    """Return what heartbeats have told of this start and the one before, each pair once."""
    pairs = [(beat["instance"], beat["previous_instance"]) for beat in server.heartbeats]
    return list(dict.fromkeys(pairs))


async def test_each_start_tells_itself_and_the_one_before_until_the_server_has_met_it(
    server: SmallServer, start_worker: StartWorker
) -> None:
    with trio.fail_after(200):
        for _ in range(3):
            async with start_worker():
                pass
    pairs = told(server)
    instances = list(dict.fromkeys(instance for instance, _ in pairs))
    first, second, third = instances
    assert pairs == [
        (first, None),
        (second, first),
        (second, None),
        (third, second),
        (third, None),
    ]


async def test_a_worker_of_whose_id_there_is_another_process_ends_and_touches_nothing(
    server: SmallServer, start_worker: StartWorker
) -> None:
    server.refuse(*BEAT, *TAKEN)
    with trio.fail_after(200):
        with pytest.raises(ExceptionGroup) as caught:
            async with start_worker():
                pass
    assert caught.group_contains(WorkerTaken, match="Another process is worker w1")
    assert not server.claims


async def test_of_starts_that_never_met_the_server_each_is_tried(
    server: SmallServer, start_worker: StartWorker, settings: WorkerSettings
) -> None:
    """Two starts were killed before they knew whether the server had heard of them."""
    ids: list[str] = []
    for _ in range(2):
        with hold_work_dir(settings) as instance:
            ids.insert(0, instance.id)
    server.refuse(*BEAT, *TAKEN, times=1)
    with trio.fail_after(200):
        async with start_worker():
            pass
    assert [before for _, before in told(server)] == [ids[1], None]


async def test_a_worker_that_hears_of_another_later_ends_at_once_and_leaves_what_runs(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    left: list[int] = []
    ended = trio.Event()

    def leave(code: int) -> None:
        left.append(code)
        ended.set()

    async def work(container: FakeContainer) -> int:
        working.set()
        await trio.sleep_forever()
        return 0

    working = trio.Event()
    engine.add_image("sleeper", work)
    server.submit("run-1", "sleeper")
    with trio.fail_after(200):
        async with start_worker(drain_timeout_s=0) as worker:
            worker.leave_now = leave
            await working.wait()
            server.refuse(*BEAT, *TAKEN)
            worker.beat_now.set()
            await ended.wait()
            assert [container.state for container in engine.containers.values()] == ["running"]
    assert left[0] == 5


def a_link(directory: Path) -> None:
    (directory.parent / "elsewhere").mkdir()
    directory.symlink_to(directory.parent / "elsewhere")


def of_somebody_else(directory: Path) -> None:
    directory.mkdir()
    os.chown(directory, 12345, 12345)


@pytest.mark.parametrize(
    ("make", "words"),
    [(a_link, "is a link"), (of_somebody_else, "belongs to another user")],
)
@pytest.mark.parametrize("inner", [True, False], ids=["its-own", "the-one-above"])
def test_a_work_directory_of_somebody_else_or_a_link_is_refused_and_not_emptied(
    make: Any, words: str, inner: bool, tmp_path: Path
) -> None:
    if make is of_somebody_else and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    work = tmp_path / "work"
    if inner:
        work.mkdir()
    directory = work / "w1" if inner else work
    make(directory)
    (directory / "precious").mkdir()
    settings = WorkerSettings(worker_id="w1", work_dir=work)
    with pytest.raises(SettingsError, match=f"{directory} {words}"), hold_work_dir(settings):
        pass
    assert (directory / "precious").is_dir()
