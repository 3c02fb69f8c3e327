"""Heartbeats go often enough for the server's lease, whatever is set and however slow it is."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gyoza.client import ServerUnreachable
from gyoza.worker.runner import supervisor
from gyoza.worker.runner.heartbeats import beat, heartbeat_loop
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context.utils import detect_cpu_and_ram
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker
from tests.worker.still_worker import open_still_worker


class Beats:
    """Takes heartbeats in place of a server's client, by the clock of the test.

    Args:
        lease_s: Told in each answer; None for a small server.

    Attributes:
        sent_at: When each was sent.
        hangs: They are not answered.
    """

    def __init__(self, worker: Worker, lease_s: float | None) -> None:
        self.lease_s = lease_s
        self.sent_at: list[float] = []
        self.told: list[dict[str, Any]] = []
        self.hangs = False
        worker.heartbeats = SimpleNamespace(heartbeat=self.heartbeat)  # pyright: ignore

    async def heartbeat(self, **told: Any) -> dict[str, Any]:
        self.sent_at.append(trio.current_time())
        self.told.append(told)
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        return {"lease_s": self.lease_s} if self.lease_s else {}

    def within(self, begin: float, end: float) -> int:
        return sum(begin <= at < end for at in self.sent_at)


@pytest.mark.parametrize("heartbeat_s", [5, 100])
@pytest.mark.parametrize("lease_s", [0.5, 2, 4, 10, 60])
async def test_heartbeats_go_at_least_three_times_a_lease(
    lease_s: float, heartbeat_s: float, mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, heartbeat_s=heartbeat_s) as (worker, _):
        beats = Beats(worker, lease_s)
        async with trio.open_nursery() as nursery:
            await nursery.start(heartbeat_loop, worker)
            await trio.sleep(20 * lease_s)
            nursery.cancel_scope.cancel()
        for lease in range(19):
            assert beats.within(lease * lease_s, (lease + 1) * lease_s) >= 3


@pytest.mark.parametrize("lease_s", [8, 60])
async def test_heartbeats_that_hang_leave_time_for_others_within_a_lease(
    lease_s: float, mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path) as (worker, _):
        beats = Beats(worker, lease_s)
        async with trio.open_nursery() as nursery:
            await nursery.start(heartbeat_loop, worker)
            beats.hangs = True
            begin = trio.current_time()
            await trio.sleep(4 * lease_s)
            nursery.cancel_scope.cancel()
        for lease in range(1, 4):
            assert beats.within(begin + lease * lease_s, begin + (lease + 1) * lease_s) >= 3


async def test_a_server_that_names_no_lease_gets_heartbeats_as_they_are_set(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    async with open_still_worker(mock_clock, tmp_path, heartbeat_s=100) as (worker, _):
        beats = Beats(worker, None)
        async with trio.open_nursery() as nursery:
            await nursery.start(heartbeat_loop, worker)
            await trio.sleep(950)
            nursery.cancel_scope.cancel()
        assert len(beats.sent_at) == 10


async def test_a_heartbeat_that_hangs_does_not_trip_the_fence(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    changes = {"heartbeat_s": 5, "fence_after_s": 10}
    async with open_still_worker(mock_clock, tmp_path, **changes) as (worker, _):
        beats = Beats(worker, 60)
        async with trio.open_nursery() as nursery:
            await nursery.start(heartbeat_loop, worker)
            beats.hangs = True
            await trio.sleep(5.5)
            beats.hangs = False
            await worker.contact.answered.wait()
            assert worker.contact.silence_s < 10
            assert max(b - a for a, b in zip(beats.sent_at, beats.sent_at[1:], strict=False)) < 10
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("fence_after_s", "told"), [(40, False), (60, True), (90, True)])
async def test_a_fence_that_comes_after_the_lease_is_told(
    fence_after_s: float,
    told: bool,
    mock_clock: MockClock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    changes = {"fence_after_s": fence_after_s}
    async with open_still_worker(mock_clock, tmp_path, **changes) as (worker, _):
        Beats(worker, 60)
        with caplog.at_level(logging.WARNING):
            async with trio.open_nursery() as nursery:
                await nursery.start(heartbeat_loop, worker)
                nursery.cancel_scope.cancel()
    assert ("GYOZA_FENCE_AFTER" in caplog.text) is told


async def test_a_heartbeat_tells_how_many_runs_there_may_be_and_that_ends_of_logs_are_told(
    server: SmallServer, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "slots_that_fit", lambda wanted: wanted - 1)  # pyright: ignore
    with trio.fail_after(200):
        async with start_worker(max_concurrency=3):
            pass
    told = server.heartbeats[-1]
    assert told["max_concurrency"] == 2
    assert told["marks_log_end"] is True


async def test_one_that_never_ends_counts_as_unheard(mock_clock: MockClock, tmp_path: Path) -> None:
    async with open_still_worker(mock_clock, tmp_path) as (worker, _):
        Beats(worker, 60).hangs = True
        with pytest.raises(ServerUnreachable, match="within 15 s"):
            await beat(worker)


async def test_a_worker_offers_what_its_settings_say(
    server: SmallServer, start_worker: StartWorker
) -> None:
    with trio.fail_after(200):
        async with start_worker(cpus=1, ram_mb=512):
            pass
    assert all(
        (beat["resources"]["cpu_cores"], beat["resources"]["ram_mb"]) == (1, 512)
        for beat in server.heartbeats
    )
    assert server.heartbeats


def test_by_default_as_many_runs_at_a_time_as_cpus_that_are_offered() -> None:
    assert WorkerSettings().max_concurrency == detect_cpu_and_ram()[0]
    assert WorkerSettings.from_env({"GYOZA_CPUS": "3"}).max_concurrency == 3
    both = {"GYOZA_CPUS": "3", "GYOZA_MAX_CONCURRENCY": "5"}
    assert WorkerSettings.from_env(both).max_concurrency == 5
