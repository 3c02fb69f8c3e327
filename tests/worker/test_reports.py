"""What reaches the server of a run: events in order and once, logs by offset, through failures."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from gyoza.client import AsyncGyozaClient, endpoints
from gyoza.client.retry import REPORT
from gyoza.models import EventType, OpRun
from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker import backoff
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.logs.events import OpEvent
from gyoza.worker.reports import events, logs
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.run_record import Position, RunRecord
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of

EVENTS = "/runs/run-1/events"
BATCH = "/runs/run-1/events/batch"
LOGS = "/runs/run-1/logs"
END = f"POST {LOGS}"
"""A last request that says that the log is whole, once that is not known with the last text."""


async def chat(container: FakeContainer) -> int:
    await container.stdout(b'one\n::gyoza::{"type": "INFO", "msg": "x"}\ntwo\n')
    return 0


async def complete(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    op: Callable[[FakeContainer], Awaitable[int]] = chat,
) -> None:
    engine.add_image("chat", op)
    server.submit("run-1", "chat")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_until(lambda: worker.active.ids == ["run-1"])
            await end_of(worker, "run-1")


async def test_a_server_that_keeps_logs_gets_all_text_before_the_end_is_reported(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    server.keeps_logs = True
    await complete(server, engine, start_worker)
    assert server.logs["run-1"] == "one\ntwo\n"
    last_log = max(i for i, request in enumerate(server.requests) if request == f"POST {LOGS}")
    last_event = max(i for i, request in enumerate(server.requests) if request == f"POST {EVENTS}")
    assert last_log < last_event


async def test_a_server_that_keeps_no_logs_is_asked_once(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    await complete(server, engine, start_worker)
    assert server.requests.count(f"POST {LOGS}") == 1
    assert server.runs["run-1"]["state"] == "COMPLETED"


@pytest.mark.parametrize("status", [404, 405, 422])
async def test_much_text_goes_as_json_to_a_server_that_does_not_take_it_as_it_is(
    status: int,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def write_twice(container: FakeContainer) -> int:
        for text in ("one\n", "two\n"):
            await container.stdout(text.encode())
            await server.wait_until(lambda text=text: server.logs.get("run-1", "").endswith(text))
        return 0

    monkeypatch.setattr(logs, "PLAIN_FROM", 1)
    server.keeps_logs = True
    server.refuse("PUT", LOGS, status, "No such thing.")
    await complete(server, engine, start_worker, write_twice)
    told = [request for request in server.requests if request.endswith("/logs")]
    assert told == [f"PUT {LOGS}", f"POST {LOGS}", f"POST {LOGS}", END]
    assert server.logs["run-1"] == "one\ntwo\n"


async def test_a_refused_log_is_cut_and_the_run_completes(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.refuse("POST", LOGS, 409, "Not yours.")
    with caplog.at_level("INFO"):
        await complete(server, engine, start_worker)
    assert "its log is cut: Not yours." in caplog.text
    assert server.runs["run-1"]["state"] == "COMPLETED"


@pytest.mark.parametrize("status", [500, 503, 401])
async def test_reports_are_sent_again_until_they_are_taken(
    status: int, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    server.refuse("POST", EVENTS, status, "Later.", times=2)
    server.refuse("POST", LOGS, status, "Later.", times=1)
    server.keeps_logs = True
    await complete(server, engine, start_worker)
    assert [e["type"] for e in server.events] == ["STARTED", "INFO", "COMPLETED"]
    assert [e["seq"] for e in server.events] == [1, 2, 3]
    assert server.logs["run-1"] == "one\ntwo\n"


@pytest.mark.parametrize("status", [400, 409, 404])
async def test_a_server_that_no_longer_wants_the_result_is_believed(
    status: int, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("chat", chat)
    server.submit("run-1", "chat")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("INFO", "run-1")
            server.refuse("POST", EVENTS, status, "No.")
            await end_of(worker, "run-1")
    assert "COMPLETED" not in [e["type"] for e in server.events]
    assert "POST /runs/run-1/release" not in server.requests


async def test_outputs_that_the_server_finds_too_large_fail_the_run(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    server.refuse_type("COMPLETED", 413, "Too large.")
    await complete(server, engine, start_worker)
    [failed] = [e for e in server.events if e["type"] == "FAILED"]
    assert failed["payload"]["reason"] == "OUTPUT_INVALID"
    assert "Too large." in failed["payload"]["error_message"]


async def test_what_was_dropped_is_told_once_though_the_first_end_is_refused(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 0)
    server.refuse_type("COMPLETED", 413, "Too large.")
    await complete(server, engine, start_worker)
    told = [(e["type"], e["msg"]) for e in server.events]
    dropped = "1 INFO and 0 ERROR events were dropped: too many for one run."
    assert told == [("STARTED", "started"), ("INFO", dropped), ("FAILED", told[-1][1])]


async def test_a_failure_that_the_server_no_longer_wants_is_left_out(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    async def fail(container: FakeContainer) -> int:
        return 1

    server.refuse_type("FAILED", 409, "It has ended.")
    await complete(server, engine, start_worker, fail)
    assert [e["type"] for e in server.events] == ["STARTED"]


def begin(tmp_path: Path) -> RunRecord:
    return RunRecord.create(tmp_path / "run-1.1", OpRun("run-1"))


def reopen(record: RunRecord) -> RunRecord:
    record.close()
    return RunRecord.load(record.directory)


def reporter_of(client: AsyncGyozaClient, record: RunRecord) -> EventReporter:
    identity = ContainerIdentity("w1", "run-1", 1)
    return EventReporter(client, identity, record, trio.CapacityLimiter(1))


async def send_all(reporter: EventReporter, kind: EventType = EventType.COMPLETED) -> None:
    """Report the end, which comes after all that is queued."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.serve)
        with trio.fail_after(200):
            await reporter.confirm(kind, "the end")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("count", "size"), [(3, 10**6), (10**6, 3 * len('["news 0", {}]'))])
async def test_a_flood_of_events_is_bounded_and_counted(
    count: int, size: int, server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", count)
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", size)
    server.submit("run-1", "any")
    async with AsyncGyozaClient(server.url, "key") as client:
        reporter = reporter_of(client, begin(tmp_path))
        for number in range(5):
            reporter.note(EventType.INFO, f"news {number}")
        reporter.note(EventType.ERROR, "x")
        reporter.note(EventType.PROGRESS, 70)
        await send_all(reporter)
    assert [e["msg"] for e in server.events] == [
        "news 0",
        "news 1",
        "news 2",
        70,
        "2 INFO and 1 ERROR events were dropped: too many for one run.",
        "the end",
    ]
    assert server.events[-2]["payload"] == {"dropped": {"INFO": 2, "ERROR": 1}}
    assert is_rising(server)


def is_rising(server: SmallServer) -> bool:
    """Whether no number is one that the server would take for a repeat."""
    numbers = [event["seq"] for event in server.events]
    return numbers == sorted(set(numbers))


async def test_events_are_counted_over_all_lives_of_the_worker(
    server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 3)
    server.submit("run-1", "any")
    record = begin(tmp_path)
    async with AsyncGyozaClient(server.url, "key") as client:
        for life in range(3):
            reporter = reporter_of(client, record)
            told = reporter.admit([OpEvent("INFO", f"{life}a"), OpEvent("ERROR", f"{life}b")])
            position = Position((life, 0), events=reporter.counted)
            record.note_output("", [report.fact for report in told], position)
            record = reopen(record)  # killed before anything was sent
        await send_all(reporter_of(client, record))
    record.close()
    dropped = "1 INFO and 2 ERROR events were dropped: too many for one run."
    assert [e["msg"] for e in server.events] == ["0a", "0b", "1a", dropped, "the end"]
    assert is_rising(server)


async def test_a_worker_killed_before_it_sent_the_end_still_tells_what_was_dropped(
    server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 1)
    server.submit("run-1", "any")
    record = begin(tmp_path)
    async with AsyncGyozaClient(server.url, "key") as client:
        first = reporter_of(client, record)
        told = first.admit([OpEvent("INFO", "one"), OpEvent("INFO", "two")])
        record.note_output("", [report.fact for report in told], Position(events=first.counted))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.confirm, EventType.COMPLETED, "the end")
            with trio.fail_after(200):
                while record.end is None:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        record = reopen(record)
        second = reporter_of(client, record)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.serve)
            with trio.fail_after(200):
                await second.confirm_recorded_end()
            nursery.cancel_scope.cancel()
    record.close()
    dropped = "1 INFO and 0 ERROR events were dropped: too many for one run."
    assert [e["msg"] for e in server.events] == ["one", dropped, "the end"]
    assert is_rising(server)


async def test_of_waiting_progress_only_the_latest_is_sent_wherever_it_waits(
    server: SmallServer, tmp_path: Path
) -> None:
    server.submit("run-1", "any")
    async with AsyncGyozaClient(server.url, "key") as client:
        reporter = reporter_of(client, begin(tmp_path))
        for percent in range(3):
            reporter.note(EventType.PROGRESS, percent)
            reporter.note(EventType.INFO, f"at {percent}")
        await send_all(reporter)
    assert [e["msg"] for e in server.events] == ["at 0", "at 1", 2, "at 2", "the end"]
    assert is_rising(server)


async def test_progress_is_paced_and_the_end_waits_for_none(
    server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PACE_S", 3600)
    server.submit("run-1", "any")
    async with AsyncGyozaClient(server.url, "key") as client, trio.open_nursery() as nursery:
        reporter = reporter_of(client, begin(tmp_path))
        nursery.start_soon(reporter.serve)
        with trio.fail_after(200):
            reporter.note(EventType.PROGRESS, 1)
            await server.wait_for_event("PROGRESS", "run-1")
            for percent in range(2, 50):
                reporter.note(EventType.PROGRESS, percent)
                await trio.testing.wait_all_tasks_blocked()
            assert [e["msg"] for e in server.events] == [1]
            await reporter.confirm(EventType.COMPLETED, "the end")
        nursery.cancel_scope.cancel()
    assert [e["msg"] for e in server.events] == [1, 49, "the end"]


async def test_progress_goes_out_once_it_is_due_and_what_follows_goes_after_it(
    server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PACE_S", 0.01)
    server.submit("run-1", "any")
    async with AsyncGyozaClient(server.url, "key") as client, trio.open_nursery() as nursery:
        reporter = reporter_of(client, begin(tmp_path))
        nursery.start_soon(reporter.serve)
        with trio.fail_after(200):
            for percent in (1, 2):
                reporter.note(EventType.PROGRESS, percent)
                reporter.note(EventType.INFO, f"at {percent}")
                told = 2 * percent
                await server.wait_until(lambda told=told: len(server.events) == told)
        nursery.cancel_scope.cancel()
    assert [e["msg"] for e in server.events] == [1, "at 1", 2, "at 2"]


async def test_of_waiting_progress_only_the_latest_is_sent(
    server: SmallServer, tmp_path: Path
) -> None:
    server.submit("run-1", "any")
    async with AsyncGyozaClient(server.url, "key") as client, trio.open_nursery() as nursery:
        reporter = reporter_of(client, begin(tmp_path))
        for percent in range(100):
            reporter.note(EventType.PROGRESS, percent)
        nursery.start_soon(reporter.serve)
        with trio.fail_after(200):
            await reporter.confirm(EventType.COMPLETED, "completed")
        nursery.cancel_scope.cancel()
    assert [e["msg"] for e in server.events] == [99, "completed"]


async def tell_five(server: SmallServer, tmp_path: Path) -> RunRecord:
    """Report five events that wait at once, and the end."""
    server.submit("run-1", "any")
    record = begin(tmp_path)
    async with AsyncGyozaClient(server.url, "key") as client:
        reporter = reporter_of(client, record)
        told = reporter.admit([OpEvent("INFO", f"news {n}", {"n": n}) for n in range(4)])
        record.note_output("", [r.fact for r in told], Position(events=reporter.counted))
        reporter.put(*told)
        reporter.note(EventType.PROGRESS, 50)
        await send_all(reporter)
    return record


FIVE = [*(f"news {n}" for n in range(4)), 50, "the end"]


async def test_events_that_wait_go_in_one_request(server: SmallServer, tmp_path: Path) -> None:
    server.keeps_batches = True
    record = await tell_five(server, tmp_path)
    assert server.requests == [f"POST {BATCH}", f"POST {EVENTS}"]
    assert [e["msg"] for e in server.events] == FIVE
    assert server.events[1]["payload"] == {"n": 1}
    assert is_rising(server)
    again = reopen(record)
    assert again.unsent == [again.end]  # told once more, which is harmless
    again.close()


@pytest.mark.parametrize("status", [400, 404, 405, 422])
async def test_a_server_that_takes_no_batches_gets_the_events_one_by_one(
    status: int, server: SmallServer, tmp_path: Path
) -> None:
    server.refuse("POST", BATCH, status, "No such thing.")
    (await tell_five(server, tmp_path)).close()
    assert server.requests == [f"POST {BATCH}", *[f"POST {EVENTS}"] * 6]
    assert [e["msg"] for e in server.events] == FIVE
    assert is_rising(server)


async def test_a_server_that_refused_a_batch_is_sent_no_other(
    server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BATCH", 2)
    (await tell_five(server, tmp_path)).close()
    assert server.requests.count(f"POST {BATCH}") == 1
    assert [e["msg"] for e in server.events] == FIVE


async def test_a_batch_holds_no_more_than_a_server_takes(
    server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BATCH", 3)
    server.keeps_batches = True
    (await tell_five(server, tmp_path)).close()
    assert server.requests == [f"POST {BATCH}", f"POST {BATCH}", f"POST {EVENTS}"]
    assert [e["msg"] for e in server.events] == FIVE


async def test_a_batch_is_sent_again_until_it_is_taken(
    server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "REPORT", replace(REPORT, tries=1))
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    server.keeps_batches = True
    server.refuse("POST", BATCH, 503, "Later.", times=2)
    (await tell_five(server, tmp_path)).close()
    assert server.requests.count(f"POST {BATCH}") == 3
    assert [e["msg"] for e in server.events] == FIVE


async def test_a_batch_of_an_attempt_that_is_lost_loses_it(
    server: SmallServer, tmp_path: Path
) -> None:
    server.submit("run-1", "any")
    for path in (BATCH, EVENTS):
        server.refuse("POST", path, 409, "Not yours.")
    async with AsyncGyozaClient(server.url, "key") as client, trio.open_nursery() as nursery:
        reporter = reporter_of(client, begin(tmp_path))
        for number in range(3):
            reporter.note(EventType.INFO, f"news {number}")
        nursery.start_soon(reporter.serve)
        with trio.fail_after(200):
            await reporter.lost.wait()
        nursery.cancel_scope.cancel()
    assert server.events == []


@pytest.mark.row("server-away")
async def test_reports_outlast_all_retries_of_the_client(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(endpoints, "REPORT", replace(REPORT, tries=1))
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    server.keeps_logs = True
    server.refuse("POST", EVENTS, 503, "Later.", times=2)
    unanswered = server.drop(f"POST {EVENTS}", f"POST {LOGS}")
    await complete(server, engine, start_worker)
    assert not unanswered
    assert [e["type"] for e in server.events] == ["STARTED", "INFO", "COMPLETED"]
    assert server.logs["run-1"] == "one\ntwo\n"
    assert caplog.text.count("retrying") == 4


async def test_of_progress_told_in_one_breath_only_the_latest_is_sent(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    async def hurry(container: FakeContainer) -> int:
        lines = (f'::gyoza::{{"type": "PROGRESS", "msg": {n}}}\n' for n in range(100))
        await container.stdout("".join(lines).encode())
        return 0

    await complete(server, engine, start_worker, hurry)
    assert [e["msg"] for e in server.events] == ["started", 99, "completed"]
