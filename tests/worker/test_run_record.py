"""The record of a run: what was noted is there after a crash at any moment, or was never noted."""

import errno
import json
import resource
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from gyoza.client import AsyncGyozaClient
from gyoza.models import OpRun
from gyoza.worker.containers.engine import ContainerEngine
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.logs.masker import Secrets
from gyoza.worker.logs.output import ContainerOutput
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.run_record import EventCount, Exit, Position, RunRecord
from gyoza.worker.run_record.journal import Journal
from gyoza.worker.run_record.slot import Slot
from tests.worker.test_logs import frame

END: dict[str, Any] = {
    "seq": 9,
    "type": "FAILED",
    "msg": "No.",
    "payload": {"reason": "ENGINE"},
    "summary": None,
}


@contextmanager
def no_file_larger_than(size: int) -> Generator[None]:
    """Let writes beyond fail, as those on a full disk do."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def begin(tmp_path: Path) -> RunRecord:
    return RunRecord.create(tmp_path / "r.1", OpRun("r", image="i", inputs={"a": [1]}))


def reopen(record: RunRecord) -> RunRecord:
    record.close()
    return RunRecord.load(record.directory)


def test_all_that_was_noted_is_recalled(tmp_path: Path) -> None:
    record = begin(tmp_path)
    record.note_starting([0, 2])
    told: dict[str, Any] = {"seq": 1, "type": "INFO", "msg": "x", "payload": {}, "summary": None}
    record.note_output("text", [told], Position((7, 0), (False, True)))
    record.note_stopping(timed_out=True)
    record.note_exit(Exit(3, oom_killed=True))
    record.note_report(END)
    again = reopen(record)
    assert again.run == record.run
    assert (again.started_at, again.gpu_ids) == (record.started_at, [0, 2])
    assert (again.stopping, again.timed_out) == (True, True)
    assert again.exited == Exit(3, oom_killed=True)
    assert (again.end, again.unsent) == (END, [told, END])
    assert again.spool.read(0) == "text"
    assert again.next_seq > END["seq"]
    third = reopen(again)
    assert third.next_seq > again.next_seq
    third.close()


def test_of_two_stops_the_first_counts(tmp_path: Path) -> None:
    record = begin(tmp_path)
    record.note_stopping(timed_out=True)
    record.note_stopping(timed_out=False)
    assert record.timed_out
    again = reopen(record)
    again.note_stopping(timed_out=False)
    third = reopen(again)
    assert (third.stopping, third.timed_out) == (True, True)
    third.close()


def test_a_stop_survives_a_power_cut_once_it_is_forced_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forced: list[int] = []
    monkeypatch.setattr("os.fdatasync", forced.append)
    record = begin(tmp_path)
    del forced[:]
    record.note_stopping(timed_out=False)
    assert not forced
    record.sync()
    assert len(forced) == 1

    def refuse(_file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fdatasync", refuse)
    record.sync()
    assert "the disk refuses its record (Input/output error)" in caplog.text
    record.close()


def test_what_the_server_has_is_not_sent_again(tmp_path: Path) -> None:
    record = begin(tmp_path)
    record.note_report(END)
    record.note_sent(seq=9)
    record.note_sent(log=4)
    again = reopen(record)
    assert (again.unsent, again.log_sent) == ([], 4)
    again.close()


@settings(deadline=None)
@given(st.integers(0, 2000))
def test_a_journal_torn_anywhere_keeps_what_was_whole_before(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path)
    facts = [{"n": number, "text": "é" * number} for number in range(20)]
    journal.append(*facts)
    journal.close()
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    again = Journal(path)
    assert again.facts == facts[: data.count(b"\n")]
    again.append({"n": "new"})
    again.close()
    last = Journal(path)
    assert last.facts == [*again.facts, {"n": "new"}]
    last.close()


def test_room_without_content_after_a_power_cut_is_no_fact(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(json.dumps({"n": 1}).encode() + b"\n" + bytes(100) + b"\n")
    journal = Journal(path)
    assert journal.facts == [{"n": 1}]
    journal.close()


def test_a_full_disk_adds_all_of_a_fact_or_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append({"n": 1})
    with no_file_larger_than(30), pytest.raises(OSError, match="too large"):
        journal.append({"n": 2}, {"long": "x" * 50})
    journal.append({"n": 3})
    journal.close()
    again = Journal(tmp_path / "journal")
    assert again.facts == [{"n": 1}, {"n": 3}]
    again.close()


def test_a_slot_holds_what_was_written_last(tmp_path: Path) -> None:
    slot = Slot(tmp_path / "slot")
    assert slot.read() == {}
    slot.write({"a": 10**15})
    slot.write({"a": 1})
    assert slot.read() == {"a": 1}
    slot.close()


def test_the_mark_has_room_for_the_largest_numbers(tmp_path: Path) -> None:
    record = begin(tmp_path)
    counted = EventCount(10**4, 10**7, 10**14, 10**14)
    position = Position((10**16, 10**16), (False, False), counted)
    told: dict[str, Any] = {"seq": 2**32 * 10**4, "type": "INFO", "msg": "x", "payload": {}}
    record.spool.cut = record.spool.ringed = 10**16
    record.note_output("x" * 10**6, [told], position)
    again = reopen(record)
    assert again.position == Position([10**16, 10**16], [False, False], counted)
    assert again.spool.cut == again.spool.ringed > 10**16
    again.close()


def test_log_text_beyond_the_mark_is_taken_anew(tmp_path: Path) -> None:
    record = begin(tmp_path)
    record.note_output("one\n", [], Position((4, 0)))
    record.spool.append("two\n")  # killed before the mark
    again = reopen(record)
    assert again.spool.read(0) == "one\n"
    assert again.position == Position([4, 0], [True, True])
    again.close()


def test_a_full_disk_costs_the_record_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = begin(tmp_path)
    with no_file_larger_than(10):
        record.note_starting([1])
        record.note_sent(seq=3)
    assert record.gpu_ids == [1]
    assert "the disk refuses its record" in caplog.text
    again = reopen(record)
    assert again.started_at is None
    again.close()


def test_too_many_events_are_sent_without_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.run_record.record.MAX_JOURNAL", 10)
    record = begin(tmp_path)
    record.note_output("x", [END], Position((1, 0)))
    again = reopen(record)
    assert (again.unsent, again.spool.read(0)) == ([], "x")
    again.close()


class Kept:
    """An engine that has kept so much of a container's output; it may hang at the end of it."""

    def __init__(self, data: bytes, *, hangs: bool) -> None:
        self._blocks = [frame(1, data[at : at + 7]) for at in range(0, len(data), 7)]
        self._hangs = hangs
        self.exhausted = trio.Event()

    @asynccontextmanager
    async def logs(self, _container_id: str, *, follow: bool) -> AsyncGenerator["Kept"]:
        assert not follow
        yield self

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._blocks:
            return self._blocks.pop(0)
        if self._hangs:
            self.exhausted.set()
            await trio.sleep_forever()
        return b""


PIECES = st.sampled_from(
    [b'::gyoza::{"type": "INFO", "msg": "x"}', b"\n", b"::gy", b"text", "é".encode()[:1], b"\xff"]
)


SECRETS = st.sampled_from([[], ["text", "xttex"], ["ext\n::gyo", "::gyoza::x"], ["texttexté"]])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(PIECES, max_size=12).map(b"".join), st.lists(st.integers(0, 200), max_size=3), SECRETS
)
def test_output_is_taken_once_whenever_the_worker_is_killed(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kills: list[int], secrets: list[str]
) -> None:
    never: list[int] = []
    whole = trio.run(_take, tmp_path_factory.mktemp("whole"), data, never, secrets)
    assert trio.run(_take, tmp_path_factory.mktemp("parts"), data, kills, secrets) == whole
    assert not any(secret in whole[0] for secret in secrets)


async def _take(
    tmp_path: Path, data: bytes, kills: list[int], secrets: list[str]
) -> tuple[str, int]:
    """Take the output in several lives, each killed when there was so much; text and events."""
    record = begin(tmp_path)
    client = AsyncGyozaClient("http://nowhere.invalid", "key")
    for size in [*sorted(kills), None]:
        limiter = trio.CapacityLimiter(1)
        reporter = EventReporter(client, ContainerIdentity("w", "r", 1), record, limiter)
        output = ContainerOutput(record, reporter, lambda: None, limiter, Secrets(secrets, least=1))
        output.container_exited(disturbed=False)
        engine = Kept(data[:size], hangs=size is not None)
        with trio.fail_after(200):
            async with trio.open_nursery() as life:
                life.start_soon(output.follow, cast("ContainerEngine", engine), "container")
                await (output.ended if size is None else engine.exhausted).wait()
                life.cancel_scope.cancel()
        record = reopen(record)
    taken = record.spool.read(0), len(record.unsent)
    record.close()
    return taken


async def test_a_line_lost_by_the_engine_is_passed_over_once_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.logs.output.LOOK_AGAIN_S", 0)
    record = begin(tmp_path)
    client = AsyncGyozaClient("http://nowhere.invalid", "key")
    limiter = trio.CapacityLimiter(1)
    reporter = EventReporter(client, ContainerIdentity("w", "r", 1), record, limiter)
    output = ContainerOutput(record, reporter, lambda: None, limiter)

    class Engine:
        """Has lost `xxx`; a follower gets the rest, and then the container has exited."""

        @asynccontextmanager
        async def logs(self, _container_id: str, *, follow: bool) -> AsyncGenerator[Kept]:
            yield Kept(b"one\nrest", hangs=False)
            if follow:
                output.container_exited(disturbed=True)

    attached = Kept(b"one\nxxx", hangs=False)
    with trio.fail_after(200):
        await output.follow(cast("ContainerEngine", Engine()), "container", attached)
    assert record.spool.read(0) == "one\nxxxrest"
    record.close()
