"""Of the ops that write to a disk that is full, the one that has written most is stopped."""

import re
from pathlib import Path

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.op_io.disk_use import DiskUse, disk_use
from gyoza.worker.runner import disk_watch, full_disk
from gyoza.worker.runner.disk_watch import MB, Room
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[Room]:
    """Return what is free, in a list; all directories are on one disk."""
    room = [Room(1000, 1000, 1000)]

    def free_room(_directory: Path) -> Room:
        return room[0]

    monkeypatch.setattr(disk_watch, "free_room", free_room)
    monkeypatch.setattr(full_disk, "PERIOD_S", 0.01)
    return room


async def write_both(server: SmallServer, engine: FakeContainerEngine) -> None:
    """Submit two runs and return when their ops have written 10 and 200 MB, as so many files."""
    written = {"small": 10, "large": 200}
    done = {name: trio.Event() for name in written}
    for name in written:

        async def write(container: FakeContainer, name: str = name) -> int:
            container.written = DiskUse(written[name] * MB, written[name])
            done[name].set()
            await trio.sleep_forever()
            return 0

        engine.add_image(name, write)
        server.submit(name, name)
    for event in done.values():
        await event.wait()


@pytest.mark.parametrize(
    "full", [Room(1, 1000, 1000), Room(1000, 1, 1000)], ids=["bytes", "inodes"]
)
async def test_the_op_that_has_written_most_fails_and_its_neighbours_go_on(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    room: list[Room],
    full: Room,
) -> None:
    with trio.fail_after(200):
        async with start_worker(min_free_mb=400, drain_timeout_s=0) as worker:
            await write_both(server, engine)
            room[0] = full
            failed = await server.wait_for_event("FAILED", "large")
            room[0] = Room(1000, 1000, 1000)
            await end_of(worker, "large")
            assert worker.active.ids == ["small"]
    assert failed["payload"]["reason"] == "DISK_FULL"
    assert re.search("had written 20[02] ", failed["payload"]["error_message"])


async def test_a_disk_that_no_op_has_filled_stops_none(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker, room: list[Room]
) -> None:
    """The two have written 210 MB, and that would not make the room of 250 MB."""
    with trio.fail_after(200):
        async with start_worker(min_free_mb=1000, drain_timeout_s=0) as worker:
            await write_both(server, engine)
            room[0] = Room(1, 1000, 1000)
            guard = full_disk.DiskGuard(worker)
            await guard.look()
            room[0] = Room(41, 1000, 1000)
            assert not any(scope.filled for scope in worker.active.at_work)
            await guard.look()
            assert [scope.identity.run_id for scope in worker.active.at_work if scope.filled] == [
                "large"
            ]
            await server.wait_for_event("FAILED", "large")


def test_what_an_op_hides_in_depth_counts_as_very_much_and_links_are_not_followed(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "etc").symlink_to("/")
    use = disk_use(tmp_path)
    assert use.inodes == 3
    assert 100_000 <= use.size < 1_000_000
    inner = tmp_path
    for _ in range(120):
        inner /= "d"
    inner.mkdir(parents=True)
    assert disk_use(tmp_path).size > 2**59
    assert disk_use(tmp_path / "none") == DiskUse()
