"""A worker that starts again goes on with what its earlier life has left, from wherever it was."""

import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.models import OpRun
from gyoza.testing import FakeContainer
from gyoza.worker.containers import gpus
from gyoza.worker.containers.engine import LogStream
from gyoza.worker.errors import EngineError, EngineUnavailable, OpDirNotRemoved
from gyoza.worker.op_io.op_dir import make_op_dir
from gyoza.worker.run_record import Exit, Position, RunRecord
from gyoza.worker.runner import take_up
from gyoza.worker.runner.run_task import remove_run_dir
from gyoza.worker.worker_context import GPU
from tests.worker.conftest import StartWorker, end_of
from tests.worker.earlier_life import RELEASE, RUN, EarlierLife, earlier, start_again

__all__ = ["earlier"]


@pytest.mark.row("killed-unstarted")
async def test_a_run_that_was_only_claimed_is_executed(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    earlier.claimed().close()
    await start_again(start_worker, earlier)
    assert earlier.server.told == ["STARTED", "INFO", "COMPLETED"]
    assert earlier.server.heartbeats[0]["running_ops"][0]["id"] == RUN


@pytest.mark.row("killed-unstarted")
async def test_a_container_that_was_only_created_is_started(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    earlier.container(record, state="created")
    record.close()
    await start_again(start_worker, earlier)
    assert earlier.server.told == ["STARTED", "INFO", "COMPLETED"]
    assert "create" not in [method for method, _ in earlier.engine.calls]


KEPT = b'one\n::gyoza::{"type": "INFO", "msg": "x"}\ntwo\n'


@pytest.mark.row("killed-running")
@pytest.mark.parametrize("taken", [0, 4, 20, len(KEPT)])
async def test_output_goes_on_where_the_earlier_life_had_got_to(
    taken: int, earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.note_starting([])
    text = "one\n" if taken < len(KEPT) else "one\ntwo\n"
    if taken == 20:  # in the middle of what becomes an event
        taken = 4
    if taken:
        record.note_output(text, [], Position((taken, 0)))
        record.note_sent(log=4)
        earlier.server.logs[RUN] = "one\n"
    earlier.container(record, state="exited", stdout=KEPT, exit_code=0)
    record.close()
    await start_again(start_worker, earlier)
    assert earlier.server.logs[RUN] == "one\ntwo\n"
    assert earlier.server.told == ["INFO"] * (taken < len(KEPT)) + ["COMPLETED"]


@pytest.mark.row("killed-running")
async def test_a_running_container_is_followed_to_its_end(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    go_on = trio.Event()

    async def wait(container: FakeContainer) -> int:
        await go_on.wait()
        await container.stdout(b"three\n")
        return 3

    earlier.engine.add_image("waiting", wait)
    record = earlier.claimed("waiting")
    record.note_starting([])
    record.note_output("one\n", [], Position((4, 0)))
    earlier.container(record, stdout=b"one\ntwo\n")
    record.close()
    with trio.fail_after(200):
        async with start_worker() as worker:
            await earlier.server.wait_until(lambda: earlier.server.logs.get(RUN) == "one\ntwo\n")
            go_on.set()
            await end_of(worker, RUN)
    assert earlier.server.logs[RUN] == "one\ntwo\nthree\n"
    [failed] = earlier.server.events
    assert (failed["type"], failed["payload"]["exit_code"]) == ("FAILED", 3)
    assert failed["seq"] > 2**32


@pytest.mark.row("killed-exited")
@pytest.mark.parametrize(
    ("exit_code", "oom_killed", "reason"),
    [(3, False, "EXIT_CODE"), (137, True, "OUT_OF_MEMORY")],
)
async def test_an_exit_that_nobody_watched_is_reported(
    exit_code: int,
    oom_killed: bool,
    reason: str,
    earlier: EarlierLife,
    start_worker: StartWorker,
) -> None:
    record = earlier.claimed()
    record.note_starting([])
    container = earlier.container(record, state="exited", exit_code=exit_code)
    container.oom_killed = oom_killed
    record.close()
    await start_again(start_worker, earlier)
    [failed] = earlier.server.events
    assert failed["payload"]["reason"] == reason


@pytest.mark.row("killed-power-cut")
@pytest.mark.parametrize("exit_code", [137, 143, 255])
async def test_a_container_that_something_ended_meanwhile_is_no_failure_of_the_op(
    exit_code: int, earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.note_starting([])
    earlier.container(record, state="exited", exit_code=exit_code, exit_seen=False)
    record.close()
    await start_again(start_worker, earlier)
    assert not earlier.server.events
    assert RELEASE in earlier.server.requests


@pytest.mark.row("killed-exited")
async def test_an_exit_with_the_code_of_lost_containers_is_the_ops_own_if_the_engine_saw_it(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.note_starting([])
    earlier.container(record, state="exited", exit_code=255)
    record.close()
    await start_again(start_worker, earlier)
    [failed] = earlier.server.events
    assert (failed["payload"]["reason"], failed["payload"]["exit_code"]) == ("EXIT_CODE", 255)


@pytest.mark.row("killed-exited")
async def test_a_recorded_exit_is_enough_to_report_the_outputs(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.note_starting([])
    record.note_output("all\n", [], Position((4, 0)), end="all\n")
    (make_op_dir(record.directory) / "output").write_text('{"n": 2}')
    record.note_exit(Exit(0))
    record.close()
    await start_again(start_worker, earlier)
    [completed] = earlier.server.events
    assert (completed["type"], completed["payload"]) == ("COMPLETED", {"n": 2})
    assert earlier.server.logs[RUN] == "all\n"


async def test_a_recorded_time_out_is_reported_as_such(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed(timeout_s=5)
    record.note_starting([])
    record.note_exit(Exit(137, timed_out=True))
    record.close()
    await start_again(start_worker, earlier)
    assert earlier.server.events[0]["payload"]["reason"] == "TIMED_OUT"


@pytest.mark.row("timeout-running")
async def test_a_time_limit_that_passed_meanwhile_ends_the_container(
    earlier: EarlierLife, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = earlier.claimed("sleeper", timeout_s=60)
    with monkeypatch.context() as past:
        past.setattr("gyoza.worker.run_record.record.time.time", lambda: 1000.0)
        record.note_starting([])
    earlier.container(record)
    record.close()
    await start_again(start_worker, earlier)
    assert earlier.server.events[0]["payload"]["reason"] == "TIMED_OUT"


FAILED: dict[str, Any] = {
    "seq": 2,
    "type": "FAILED",
    "msg": "No.",
    "payload": {"reason": "POLICY"},
    "summary": {},
}
TOLD: dict[str, Any] = {"seq": 1, "type": "INFO", "msg": "x", "payload": {}, "summary": None}


@pytest.mark.row("killed-exited")
async def test_recorded_reports_are_sent_in_order_and_once(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.note_output("a\n", [TOLD], Position((2, 0)))
    record.note_report(FAILED)
    record.close()
    await start_again(start_worker, earlier)
    assert [(e["type"], e["seq"]) for e in earlier.server.events] == [("INFO", 1), ("FAILED", 2)]
    assert earlier.server.logs[RUN] == "a\n"
    assert "pull" not in [method for method, _ in earlier.engine.calls]


async def test_an_event_whose_output_was_not_marked_is_told_once(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.note_starting([])
    earlier.container(record, state="exited", stdout=KEPT, exit_code=0)
    record.note_output("", [TOLD], Position((len(KEPT), 0)))
    (record.directory / "mark").write_bytes(b"")  # killed between the journal and the mark
    record.close()
    await start_again(start_worker, earlier)
    assert earlier.server.told == ["INFO", "COMPLETED"]


async def test_an_end_that_the_server_has_only_costs_the_clean_up(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.note_report(FAILED)
    record.note_sent(seq=2)
    record.close()
    await start_again(start_worker, earlier)
    assert not earlier.server.events


@pytest.mark.row("killed-too-late")
@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETED", "PENDING", None])
async def test_a_run_that_is_no_longer_ours_is_stopped_and_removed(
    state: str | None, earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed("sleeper")
    record.note_starting([])
    earlier.container(record)
    record.close()
    if state is None:
        del earlier.server.runs[RUN]
    else:
        earlier.server.runs[RUN]["state"] = state
    await start_again(start_worker, earlier)
    assert not earlier.server.events
    assert "ask_to_stop" in [method for method, _ in earlier.engine.calls]


async def test_only_the_latest_attempt_of_a_run_is_taken_up(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    earlier.claimed(current_attempt=1).close()
    earlier.server.runs[RUN]["current_attempt"] = 2
    later = OpRun.from_dict(earlier.server.runs[RUN])
    RunRecord.create(earlier.work_dir / f"{RUN}.2", later).close()
    await start_again(start_worker, earlier)
    assert {event["attempt"] for event in earlier.server.events} == {2}


@pytest.mark.row("killed-power-cut")
async def test_a_run_whose_container_has_vanished_is_given_back(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.note_starting([])
    record.close()
    await start_again(start_worker, earlier)
    assert not earlier.server.events
    assert RELEASE in earlier.server.requests


def torn(directory: Path) -> None:
    (directory / "journal").write_bytes(b'{"fact": "claimed", "run": {"id"')


def empty(directory: Path) -> None:
    (directory / "journal").write_bytes(b"")


def foreign(directory: Path) -> None:
    (directory / "journal").write_bytes(b'{"some": "thing"}\n')


@pytest.mark.parametrize("spoil", [torn, empty, foreign])
async def test_a_directory_that_tells_of_no_run_is_removed(
    spoil: Callable[[Path], None], earlier: EarlierLife, start_worker: StartWorker
) -> None:
    earlier.claimed().close()
    spoil(earlier.work_dir / f"{RUN}.1")
    (earlier.work_dir / "a file").touch()
    (earlier.work_dir / "link").symlink_to("/")
    async with start_worker():
        pass
    assert {path.name for path in earlier.work_dir.iterdir()} == {"a file", "link"}
    assert not earlier.server.events


async def test_a_last_fact_that_was_torn_never_happened(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.close()
    with (record.directory / "journal").open("ab") as journal:
        journal.write(b'{"fact": "report", "ends": true, "rep')
    await start_again(start_worker, earlier)
    assert earlier.server.told == ["STARTED", "INFO", "COMPLETED"]


async def test_the_server_is_asked_until_it_answers(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    earlier.claimed().close()
    earlier.server.refuse("GET", f"/runs/{RUN}", 500, "Later.", times=2)
    await start_again(start_worker, earlier)
    assert earlier.server.told == ["STARTED", "INFO", "COMPLETED"]


async def test_a_created_container_is_made_anew_for_gpus_that_are_free_now(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed(constraints={"vram_mb": 10})
    earlier.container(record, ["3"], state="created")
    record.close()
    with trio.fail_after(200):
        async with start_worker(gpus=[GPU(3, 100)]) as worker:
            await end_of(worker, RUN)
    assert earlier.server.told == ["STARTED", "INFO", "COMPLETED"]
    assert earlier.server.events[-1]["summary"]["gpu_ids"] == [3]
    assert [m for m, _ in earlier.engine.calls if m in ("create", "start")] == ["create", "start"]


async def test_gpus_of_a_run_that_is_taken_up_are_its_own_until_it_is_gone(
    earlier: EarlierLife, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "LOOK_AGAIN_S", 0.01)
    record = earlier.claimed("sleeper", constraints={"vram_mb": 10})
    record.note_starting([3])
    earlier.container(record, ["3"])
    record.close()
    with trio.fail_after(200):
        async with start_worker(gpus=[GPU(3, 100)]) as worker:
            earlier.server.submit("run-2", "chat", constraints={"vram_mb": 10})
            await earlier.server.wait_for_event("STARTED", "run-2")
            earlier.engine.calls.clear()
            with earlier.engine.hold("list") as looking:
                await looking.reached.wait()
            with earlier.engine.hold("list") as looking_again:
                await looking_again.reached.wait()
            assert "create" not in [method for method, _ in earlier.engine.calls]
            earlier.server.cancel(RUN)
            await earlier.server.wait_for_event("COMPLETED", "run-2")
            await end_of(worker, "run-2")
    assert earlier.server.events[-1]["summary"]["gpu_ids"] == [3]


async def test_a_start_that_the_engine_refuses_after_one_that_broke_off_gives_the_run_back(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    record.note_starting([])
    earlier.container(record, state="created")
    record.close()
    earlier.engine.failures["start"] = EngineError("The task exists already.")
    await start_again(start_worker, earlier)
    assert not earlier.server.events
    assert RELEASE in earlier.server.requests


async def test_whatever_the_server_says_but_no_it_is_asked_again(
    earlier: EarlierLife, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.backoff.FIRST_S", 0.01)
    earlier.claimed().close()
    earlier.server.refuse("GET", f"/runs/{RUN}", 403, "Not now.", times=2)
    await start_again(start_worker, earlier)
    assert earlier.server.told == ["STARTED", "INFO", "COMPLETED"]


async def test_a_cancel_told_by_the_first_heartbeat_stops_the_run(
    earlier: EarlierLife, start_worker: StartWorker
) -> None:
    record = earlier.claimed("sleeper")
    record.note_starting([])
    earlier.container(record)
    record.close()
    earlier.server.runs[RUN]["state"] = "CANCELLED"
    earlier.server.told_at_heartbeats = {RUN: "CANCELLED"}
    await start_again(start_worker, earlier)
    assert not earlier.server.events
    assert "ask_to_stop" in [method for method, _ in earlier.engine.calls]


@pytest.mark.parametrize("state", ["RUNNING", "CANCELLED"])
async def test_a_container_that_the_engine_will_not_tell_of_is_left_with_its_directory(
    state: str, earlier: EarlierLife, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    record = earlier.claimed()
    record.note_starting([])
    record.note_exit(Exit(3))
    record.close()
    earlier.server.runs[RUN]["state"] = state
    earlier.engine.failures["list"] = EngineError("Not now.")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await end_of(worker, RUN)
    assert earlier.server.told == ["FAILED"] * (state == "RUNNING")
    assert "stays: Not now." in caplog.text
    assert (earlier.work_dir / f"{RUN}.1").exists()


async def test_kept_output_is_asked_for_until_the_engine_is_back(
    earlier: EarlierLife, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.backoff.FIRST_S", 0.01)
    logs, answers = earlier.engine.logs, iter([False, False, False, True])

    @asynccontextmanager
    async def away_for_a_while(container_id: str, *, follow: bool) -> AsyncGenerator[LogStream]:
        if not next(answers, True):
            raise EngineUnavailable("Away.")
        async with logs(container_id, follow=follow) as stream:
            yield stream

    record = earlier.claimed()
    record.note_starting([])
    earlier.container(record, state="exited", stdout=KEPT, exit_code=0)
    record.close()
    monkeypatch.setattr(earlier.engine, "logs", away_for_a_while)
    await start_again(start_worker, earlier)
    assert earlier.server.told == ["INFO", "COMPLETED"]
    assert earlier.server.logs[RUN] == "one\ntwo\n"


async def test_output_that_the_engine_refuses_to_give_costs_the_log_not_the_run(
    earlier: EarlierLife,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @asynccontextmanager
    async def refuse(container_id: str, *, follow: bool) -> AsyncGenerator[LogStream]:
        raise EngineError(f"The log of {container_id} is broken.")
        yield

    record = earlier.claimed()
    record.note_starting([])
    earlier.container(record, state="exited", stdout=KEPT, exit_code=0)
    record.close()
    monkeypatch.setattr(earlier.engine, "logs", refuse)
    await start_again(start_worker, earlier)
    assert earlier.server.told == ["COMPLETED"]
    assert "the rest of its output is lost" in caplog.text


async def test_a_directory_of_no_run_that_cannot_be_removed_is_told_and_does_no_harm(
    earlier: EarlierLife,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(directory: Path) -> None:
        shutil.rmtree(directory)  # by hand, later
        raise OpDirNotRemoved(f"{directory.name} cannot be removed; remove it by hand.")

    record = earlier.claimed()
    record.note_starting([])
    earlier.container(record, state="exited", stdout=KEPT, exit_code=0)
    record.close()
    (earlier.work_dir / "junk.1").mkdir()
    monkeypatch.setattr(take_up, "remove_op_dir", refuse)
    await start_again(start_worker, earlier)
    assert "junk.1 cannot be removed" in caplog.text
    assert earlier.server.told == ["INFO", "COMPLETED"]


async def test_a_run_directory_that_cannot_be_removed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "link").symlink_to("/")
    await remove_run_dir(tmp_path / "link", trio.CapacityLimiter(1))
    assert "link cannot be removed" in caplog.text
