"""The log path: what a container writes becomes events, tail and spool, byte for byte."""

import errno
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gyoza.client import AsyncGyozaClient
from gyoza.models import OpRun
from gyoza.testing import open_fake_engine
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.logs.demultiplexer import STDERR, STDOUT, Demultiplexer
from gyoza.worker.logs.events import MAX_EVENT, PREFIX, EventParser, OpEvent, parse_event
from gyoza.worker.logs.output import ContainerOutput
from gyoza.worker.logs.spool import LogSpool
from gyoza.worker.logs.tail import Tail, last_lines
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.run_record import RunRecord

INFO = PREFIX + b'{"type": "INFO", "msg": "hello", "payload": {"a": [1]}}'


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return (data[a:b] for a, b in pairwise(bounds))


PIECES = st.sampled_from(
    [PREFIX, INFO, b"\n", b"::gy", b"oza::", b"text", b"\r\n", b":", b'{"type":"PROGRESS","msg":7}']
)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.lists(st.integers(0, 500), max_size=6))
def test_events_are_whole_lines_with_the_prefix_wherever_blocks_are_cut(
    data: bytes, places: list[int]
) -> None:
    expected_events: list[OpEvent] = []
    expected_text = b""
    for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
        event = parse_event(line) if line.startswith(PREFIX) else None
        expected_text += b"" if event else line
        expected_events += [event] if event else []
    parser = EventParser()
    items = [item for block in cut(data, places) for item in parser.feed(block)]
    items += parser.close()
    assert [item for item in items if isinstance(item, OpEvent)] == expected_events
    assert b"".join(item for item in items if isinstance(item, bytes)) == expected_text


@given(
    st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=20)), max_size=8),
    st.lists(st.integers(0, 500), max_size=8),
)
def test_both_streams_are_told_apart_wherever_blocks_are_cut(
    frames: list[tuple[int, bytes]], places: list[int]
) -> None:
    demultiplexer = Demultiplexer()
    got = {STDOUT: b"", STDERR: b""}
    for block in cut(b"".join(frame(*f) for f in frames), places):
        for stream, piece in demultiplexer.feed(block):
            got[stream] += piece
    for stream in got:
        assert got[stream] == b"".join(data for number, data in frames if number == stream)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[1]",
        b"not json",
        b'{"type": "COMPLETED", "msg": "mine"}',
        b'{"type": "STARTED", "msg": "mine"}',
        b'{"type": "PROGRESS", "msg": "half"}',
        b'{"type": "PROGRESS", "msg": true}',
        b'{"type": "PROGRESS", "msg": 101}',
        b'{"type": "PROGRESS", "msg": -1}',
        b'{"type": "PROGRESS", "msg": 1.5}',
        b'{"type": "INFO", "msg": 5}',
        b'{"type": "INFO", "msg": "x", "payload": [1]}',
        b'{"type": "INFO", "msg": "x", "payload": {"n": NaN}}',
        b'{"type": "INFO", "msg": "\\ud800"}',
        b'{"type": ["INFO"], "msg": "x"}',
        b"[" * 100_000,
        b'{"type": "INFO", "msg": "\xff"}',
    ],
)
def test_a_line_that_is_no_event_an_op_may_send_stays_a_log_line(line: bytes) -> None:
    line = (PREFIX + line)[:MAX_EVENT] + b"\n"
    parser = EventParser()
    assert [*parser.feed(line), *parser.close()] == [line]


def test_an_event_longer_than_the_cap_is_a_log_line_and_the_next_one_counts() -> None:
    long = PREFIX + json.dumps({"type": "INFO", "msg": "x" * MAX_EVENT}).encode() + b"\n"
    parser = EventParser()
    for data in (long, long[: MAX_EVENT + 10], long[MAX_EVENT + 10 :]):
        assert b"".join(i for i in parser.feed(data) if isinstance(i, bytes)) == data
    assert [type(item) for item in parser.feed(INFO + b"\n")] == [OpEvent]


def test_the_tail_keeps_the_end() -> None:
    tail = Tail(limit=10)
    for word in ("one ", "two ", "three ", "four"):
        tail.add(word)
    assert tail.text() == "three four"
    assert last_lines("a\nb\nc\n", lines=2) == "b\nc"
    assert last_lines("x" * 9000, chars=10) == "x" * 10


def test_what_exceeds_the_spool_is_cut_with_a_word_and_the_end_is_kept(tmp_path: Path) -> None:
    spool = LogSpool(tmp_path / "log", cap=10)
    for text in ("0123456789", "cut away", "the end"):
        spool.append(text)
    spool.finish("away the end"[-7:])
    assert spool.read(0) == "0123456789\n[gyoza: 8 bytes of the log are cut here]\nthe end"
    spool.finish("nothing was cut since")
    assert spool.size == len(spool.read(0))
    spool.close()


def test_a_chunk_of_the_spool_never_ends_inside_a_character(tmp_path: Path) -> None:
    spool = LogSpool(tmp_path / "log")
    spool.append("éé€")
    assert spool.read(0, 4) == "éé"
    assert spool.read(4, 4) == "€"
    spool.close()


class Blocks:
    """A log stream of blocks known beforehand."""

    def __init__(self, *blocks: bytes) -> None:
        self._blocks = [*blocks, b""]

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._blocks.pop(0)


async def follow(tmp_path: Path, *blocks: bytes) -> tuple[str, list[OpEvent], str]:
    record = RunRecord.create(tmp_path / "r.1", OpRun("r"))
    limiter = trio.CapacityLimiter(1)
    async with (
        AsyncGyozaClient("http://nowhere.invalid", "key") as client,
        open_fake_engine() as engine,
    ):
        reporter = EventReporter(client, ContainerIdentity("w", "r", 1), record, limiter)
        output = ContainerOutput(record, reporter, lambda: None, limiter)
        output.container_exited(disturbed=False)
        with trio.fail_after(5):
            await output.follow(engine, "container", Blocks(*blocks))
    assert output.ended.is_set()
    record.close()
    again = RunRecord.load(record.directory)
    spooled = again.spool.read(0)
    events = [OpEvent(e["type"], e["msg"], e["payload"]) for e in again.unsent]
    again.close()
    return output.tail.text(), events, spooled


async def test_each_stream_has_its_own_decoder(tmp_path: Path) -> None:
    euro = "€".encode()
    data = frame(STDOUT, euro[:1]) + frame(STDERR, b"err\n") + frame(STDOUT, euro[1:])
    text, events, spooled = await follow(tmp_path, data[:5], data[5:])
    assert text == spooled == "err\n€"
    assert not events


async def test_the_last_line_needs_no_newline_and_bad_bytes_are_marked(tmp_path: Path) -> None:
    data = frame(STDOUT, b"\xff\x00 last \xe2\x82") + frame(STDERR, INFO)
    text, events, spooled = await follow(tmp_path, data)
    assert text == spooled == "�\x00 last �"
    assert events == [OpEvent("INFO", "hello", {"a": [1]})]


async def test_a_full_disk_costs_the_log_at_the_server_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: LogSpool, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LogSpool, "append", full)
    text, _, spooled = await follow(tmp_path, frame(STDOUT, b"a\n"), frame(STDOUT, b"b\n"))
    assert (text, spooled) == ("a\nb\n", "")
    assert caplog.text.count("No space left") == 1
