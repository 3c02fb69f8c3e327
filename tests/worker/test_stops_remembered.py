"""A stop that a worker has begun decides what comes of a run, though the worker is killed in it."""

import json
from typing import Any

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.run_record import Position, RunRecord
from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.worker import Worker
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.earlier_life import RELEASE, RUN, EarlierLife, earlier, start_again
from tests.worker.programs import sleep_for_ever
from tests.worker.stopping import called

__all__ = ["earlier"]

both_stops = pytest.mark.parametrize(
    "timed_out", [pytest.param(True, id="timed_out"), pytest.param(False, id="given_back")]
)


def stopping(earlier: EarlierLife, *, timed_out: bool, image: str = "sleeper") -> RunRecord:
    """Claim a run, start it, and begin to stop it."""
    record = earlier.claimed(image, timeout_s=3600)  # it does not end it before its stop does
    record.note_starting([])
    record.note_stopping(timed_out)
    return record


def assert_the_stop_decided(server: SmallServer, *, timed_out: bool) -> dict[str, Any]:
    """Check what the server was told; return the report, empty if there was none."""
    assert (RELEASE in server.requests) is not timed_out
    if not timed_out:
        assert not server.events
        return {}
    [failed] = server.events
    assert (failed["type"], failed["payload"]["reason"]) == ("FAILED", "TIMED_OUT")
    return failed


@pytest.mark.row("killed-stopping", "timeout-running")
@both_stops
@pytest.mark.parametrize("exit_code", [0, 1, 99, 137, 143, 255])
async def test_whatever_a_container_that_was_being_stopped_exited_with_the_stop_decides(
    exit_code: int, timed_out: bool, earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = stopping(earlier, timed_out=timed_out)
    earlier.container(record, state="exited", exit_code=exit_code, stdout=b"last words\n")
    record.close()
    await start_again(start_worker, earlier)
    assert_the_stop_decided(earlier.server, timed_out=timed_out)
    assert earlier.server.logs[RUN] == "last words\n"


@pytest.mark.row("killed-stopping", "disk-full")
async def test_an_op_that_was_being_stopped_for_a_full_disk_has_failed_of_that(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed("sleeper")
    record.note_starting([])
    record.note_stopping(False, "The op has filled a disk.")
    earlier.container(record, state="exited", exit_code=0)
    record.close()
    await start_again(start_worker, earlier)
    [failed] = earlier.server.events
    assert failed["payload"]["reason"] == "DISK_FULL"
    assert failed["msg"] == "The op has filled a disk."


@both_stops
async def test_it_decides_too_if_the_op_ran_out_of_memory(
    timed_out: bool, earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = stopping(earlier, timed_out=timed_out)
    earlier.container(record, state="exited", exit_code=137).oom_killed = True
    record.close()
    await start_again(start_worker, earlier)
    told = assert_the_stop_decided(earlier.server, timed_out=timed_out)
    assert ("for memory" in told.get("msg", "")) is timed_out


@pytest.mark.row("killed-stopping", "third-signal")
@both_stops
async def test_a_stop_that_was_recorded_and_not_yet_sent_is_carried_on(
    timed_out: bool, earlier: EarlierLife, start_worker: StartWorker
) -> None:
    async def say_bye(container: FakeContainer) -> int:
        await container.stop_asked.wait()
        await container.stdout(b"bye\n")
        return 0

    earlier.engine.add_image("polite", say_bye, handles_stop=True)
    record = stopping(earlier, timed_out=timed_out, image="polite")
    earlier.container(record)
    record.close()
    await start_again(start_worker, earlier)
    assert_the_stop_decided(earlier.server, timed_out=timed_out)
    assert earlier.server.logs[RUN] == "bye\n"
    assert called(earlier.engine, "ask_to_stop", "kill") == ["ask_to_stop"]


@pytest.mark.row("killed-stopping")
@both_stops
async def test_a_stop_is_carried_on_once_the_engine_is_back(
    timed_out: bool,
    earlier: EarlierLife,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gyoza.worker.backoff.FIRST_S", 0.01)
    record = stopping(earlier, timed_out=timed_out)
    earlier.container(record)
    record.close()
    with trio.fail_after(200):
        async with start_worker() as worker:
            with earlier.engine.hold("ask_to_stop") as gate:
                await gate.reached.wait()
                earlier.engine.go_away()
            tries = ["ask_to_stop"] * 3
            await earlier.server.wait_until(
                lambda: called(earlier.engine, "ask_to_stop")[:3] == tries
            )
            earlier.engine.come_back(containers_end_with=0)
            await end_of(worker, RUN)
    assert_the_stop_decided(earlier.server, timed_out=timed_out)
    assert not earlier.engine.containers


@both_stops
async def test_a_container_whose_start_the_engine_lost_is_not_started_after_its_stop(
    timed_out: bool, earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = stopping(earlier, timed_out=timed_out)
    earlier.container(record, state="created")
    record.close()
    await start_again(start_worker, earlier)
    assert_the_stop_decided(earlier.server, timed_out=timed_out)
    assert "start" not in called(earlier.engine, "start")


@both_stops
async def test_the_stop_decides_though_somebody_has_removed_the_container(
    timed_out: bool, earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = stopping(earlier, timed_out=timed_out)
    record.note_output("taken before\n", [], Position((13, 0)))
    record.close()
    await start_again(start_worker, earlier)
    assert_the_stop_decided(earlier.server, timed_out=timed_out)
    assert earlier.server.logs[RUN] == "taken before\n"


@pytest.mark.row("killed-too-late")
@both_stops
async def test_the_server_decides_over_a_recorded_stop(
    timed_out: bool, earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = stopping(earlier, timed_out=timed_out)
    earlier.container(record)
    record.close()
    earlier.server.runs[RUN]["state"] = "CANCELLED"
    await start_again(start_worker, earlier)
    assert not earlier.server.events
    assert RELEASE not in earlier.server.requests


def recorded_stops(worker: Worker) -> list[bool]:
    """Return the stops that are on the disk, by whether they are those of a time limit."""
    journal = (worker.settings.work_dir / f"{RUN}.1" / "journal").read_text()
    facts = [json.loads(line) for line in journal.splitlines()]
    return [fact["timed_out"] for fact in facts if fact["fact"] == "stopping"]


@pytest.mark.parametrize(
    "stop", ["time_limit", CancelReason.SHUTDOWN, CancelReason.FENCED, CancelReason.LEASE_LOST]
)
async def test_a_stop_is_recorded_before_its_signal_is_sent(
    stop: str, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    begun = trio.Event()

    async def begin(container: FakeContainer) -> int:
        begun.set()
        return await sleep_for_ever(container)

    engine.add_image("sleeper", begin)
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold("ask_to_stop") as gate:
                server.submit(RUN, "sleeper", timeout_s=0.01 if stop == "time_limit" else None)
                await begun.wait()
                if isinstance(stop, CancelReason):
                    worker.active.trip_all(stop)
                await gate.reached.wait()
                assert recorded_stops(worker) == [stop == "time_limit"]
            await end_of(worker, RUN)


async def test_so_is_one_of_a_container_that_may_run_though_the_engine_did_not_say(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    engine.lost_answers.add("start")
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold("ask_to_stop") as stopping:
                with engine.hold("list") as looking:
                    server.submit(RUN, "sleeper")
                    await looking.reached.wait()
                    worker.active.trip_all(CancelReason.SHUTDOWN)
                await stopping.reached.wait()
                assert recorded_stops(worker) == [False]
            await end_of(worker, RUN)
    assert RELEASE in server.requests
