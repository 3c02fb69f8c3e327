"""The log path: what a container writes becomes events, tail and spool, byte for byte."""

import errno
import json
import re
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from gyoza.client import AsyncGyozaClient
from gyoza.models import OpRun
from gyoza.op import MAX_DEPTH
from gyoza.testing import open_fake_engine
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.logs.demultiplexer import STDERR, STDOUT, Demultiplexer
from gyoza.worker.logs.events import MAX_EVENT, PREFIX, EventParser, OpEvent, parse_event
from gyoza.worker.logs.masker import Secrets
from gyoza.worker.logs.output import SMALL, ContainerOutput
from gyoza.worker.logs.spool import LogSpool
from gyoza.worker.logs.tail import MAX_TAIL, Tail, last_lines
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


@settings(deadline=None)
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


@settings(deadline=None)
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
        b'{"type": "INFO", "msg": "\xed\xa0\x80"}',
        b'{"type": "INFO", "msg": "x", "payload": {"n": 1e999}}',
        b'{"type": "INFO", "msg": "x", "payload": {"n": ' + b"9" * 4000 + b"}}",
        b'{"type": "PROGRESS", "msg": ' + b"9" * 5000 + b"}",
        b'{"type": "INFO", "msg": "x", "payload": ' + b'{"a":' * 100 + b"1" + b"}" * 101,
        b'{"type": "INFO", "msg": "x", "payload": {"a": [' + b"0," * 6000 + b"0]}}",
        b'::gyoza::{"type": "INFO", "msg": "nested"}',
        b'{"type": "INFO", "msg": "x"}\x00',
        b'\xef\xbb\xbf{"type": "INFO", "msg": "x"}',
        '{"type": "INFO", "msg": "x"}'.encode("utf-16"),
        b'{"type": "INFO", "msg": "x"} {"type": "INFO", "msg": "y"}',
        b'{"type": "RETRIED", "msg": "x"}',
        b'{"type": "CANCELLED", "msg": "x"}',
    ],
)
def test_a_line_that_is_no_event_an_op_may_send_stays_a_log_line(line: bytes) -> None:
    line = (PREFIX + line)[:MAX_EVENT] + b"\n"
    parser = EventParser()
    assert [*parser.feed(line), *parser.close()] == [line]


@pytest.mark.parametrize(
    "before", [b"\r", b"\x1b[2K", b"\x1b[0m", b" ", b"\xef\xbb\xbf", b"\0", b"50%\r"]
)
def test_a_line_is_an_event_only_if_the_prefix_is_its_very_first(before: bytes) -> None:
    parser = EventParser()
    line = before + INFO + b"\n"
    assert b"".join(cast("Iterator[bytes]", parser.feed(line))) == line


def test_a_payload_may_nest_as_deep_as_the_helper_of_ops_lets_it() -> None:
    def nested(depth: int) -> bytes:
        payload = b'{"a":' * depth + b"1" + b"}" * depth
        return PREFIX + b'{"type": "INFO", "msg": "x", "payload": ' + payload + b"}"

    assert parse_event(nested(MAX_DEPTH))
    assert not parse_event(nested(MAX_DEPTH + 1))


def test_an_event_touches_no_run_but_its_own() -> None:
    claimed = b'{"type": "INFO", "msg": "x", "run_id": "other", "worker_id": "w", "attempt": 9}'
    assert parse_event(PREFIX + claimed + b"\r\n") == OpEvent("INFO", "x")


def test_an_event_that_comes_byte_by_byte_is_searched_once() -> None:
    event = PREFIX + json.dumps({"type": "INFO", "msg": "x" * 60_000}).encode()
    parser = EventParser()
    for at in range(len(event)):
        assert not [*parser.feed(event[at : at + 1])]
    assert parser.held == len(event)
    assert [type(item) for item in parser.feed(b"\n")] == [OpEvent]
    for _ in range(2):
        ordinary = [item for _ in range(MAX_EVENT + 1) for item in parser.feed(PREFIX[:1])]
        assert b"".join(cast("list[bytes]", ordinary)) == b":" * (MAX_EVENT + 1)
        assert [*parser.feed(b"\n")] == [b"\n"]


def test_a_prefix_without_an_end_is_held_no_longer_than_an_event_may_be() -> None:
    parser = EventParser()
    assert not [*parser.feed(PREFIX)]
    told = b""
    for _ in range(3 * MAX_EVENT // 1000):
        told += b"".join(cast("Iterator[bytes]", parser.feed(b"x" * 1000)))
        assert parser.held <= MAX_EVENT
    assert told == PREFIX + b"x" * (len(told) - len(PREFIX))
    assert parser.held == 0


def test_frames_of_one_stream_in_a_row_are_taken_as_one() -> None:
    frames = b"".join(frame(STDOUT, b"x") for _ in range(1000)) + frame(STDERR, b"")
    frames += frame(STDERR, b"e") + frame(STDOUT, b"y")
    pieces = [*Demultiplexer().feed(frames)]
    assert pieces == [(STDOUT, b"x" * 1000), (STDERR, b"e"), (STDOUT, b"y")]


def test_an_event_longer_than_the_cap_is_a_log_line_and_the_next_one_counts() -> None:
    long = PREFIX + json.dumps({"type": "INFO", "msg": "x" * MAX_EVENT}).encode() + b"\n"
    parser = EventParser()
    for data in (long, long[: MAX_EVENT + 10], long[MAX_EVENT + 10 :]):
        assert b"".join(i for i in parser.feed(data) if isinstance(i, bytes)) == data
    assert [type(item) for item in parser.feed(INFO + b"\n")] == [OpEvent]


def test_the_tail_keeps_the_end_and_says_what_is_missing() -> None:
    tail = Tail(limit=10)
    for word in ("", "one ", "two"):
        tail.add(word)
    assert tail.text() == tail.end() == "one two"
    tail.add(" three ")
    tail.add("four")
    assert tail.end() == "three four"
    assert tail.text() == "[gyoza: the log before this is cut here]\nthree four"
    assert last_lines("a\nb\nc\n", lines=2) == "b\nc"
    assert last_lines("x" * 9000, chars=10) == "x" * 10


def test_a_tail_of_many_small_pieces_takes_no_more_room_than_its_text() -> None:
    tail = Tail()
    tracemalloc.start()
    for number in range(500_000):
        tail.add(f"{number % 90 + 10}\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(tail.end()) == MAX_TAIL
    assert tail.end().endswith(f"\n{499_998 % 90 + 10}\n{499_999 % 90 + 10}\n")
    assert peak < 4_000_000


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
        with trio.fail_after(200):
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


@pytest.mark.parametrize(
    ("pieces", "secrets"), [(SMALL, []), (2, ["a-secret"])], ids=["many-pieces", "secrets"]
)
async def test_what_may_take_long_is_parsed_beside_the_loop(
    tmp_path: Path, pieces: int, secrets: list[str]
) -> None:
    """A block of very many pieces, or secrets to look for: both are chosen by who submits a run."""
    record = RunRecord.create(tmp_path / "r.1", OpRun("r"))
    limiter, parsers = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
    block = b"".join(frame(STDOUT, b"o") + frame(STDERR, b"e") for _ in range(pieces))
    async with (
        AsyncGyozaClient("http://nowhere.invalid", "key") as client,
        trio.open_nursery() as nursery,
    ):
        reporter = EventReporter(client, ContainerIdentity("w", "r", 1), record, limiter)
        output = ContainerOutput(record, reporter, lambda: None, limiter, Secrets(secrets), parsers)
        output.container_exited(disturbed=False)
        async with open_fake_engine() as engine:
            with trio.fail_after(200):
                async with parsers:
                    nursery.start_soon(output.follow, engine, "container", Blocks(block))
                    await trio.testing.wait_all_tasks_blocked()
                    assert output.tail.text() == ""
                await output.ended.wait()
    assert output.tail.text() == "oe" * pieces
    record.close()


async def test_the_last_line_needs_no_newline_and_bad_bytes_are_marked(tmp_path: Path) -> None:
    data = frame(STDOUT, b"\xff\x00 last \xe2\x82") + frame(STDERR, INFO)
    text, events, spooled = await follow(tmp_path, data)
    assert text == spooled == "�\x00 last �"
    assert events == [OpEvent("INFO", "hello", {"a": [1]})]


@pytest.mark.parametrize("cap", range(10, 60, 7))
async def test_no_cut_leaves_half_a_secret(cap: int, tmp_path: Path) -> None:
    """It is masked before spool, tail and the last lines of a failure are cut to their sizes."""
    secret = "0123456789abcdef"
    record = RunRecord.create(tmp_path / "r.1", OpRun("r"))
    record.spool.close()
    record.spool = LogSpool(tmp_path / "r.1" / "log", cap=cap)
    limiter = trio.CapacityLimiter(1)
    blocks = [frame(STDOUT, f"{'x' * n}{secret[:5]}".encode()) for n in range(20)]
    blocks = [part for block in blocks for part in (block, frame(STDOUT, secret[5:].encode()))]
    async with AsyncGyozaClient("http://nowhere.invalid", "key") as client:
        reporter = EventReporter(client, ContainerIdentity("w", "r", 1), record, limiter)
        output = ContainerOutput(record, reporter, lambda: None, limiter, Secrets([secret]))
        output.tail = Tail(limit=cap)
        output.container_exited(disturbed=False)
        async with open_fake_engine() as engine:
            with trio.fail_after(200):
                await output.follow(engine, "container", Blocks(*blocks))
    spooled = record.spool.read(0)
    for text in (spooled, output.tail.text(), last_lines(output.tail.text(), chars=cap // 2)):
        assert not any(char in text.partition("[")[0] for char in "abcdef45678")
        assert "***" in text or cap < 20
    [(before, cut, after)] = re.findall(r"(?s)^(.*)\n\[gyoza: (\d+) .* here\]\n(.*)$", spooled)
    assert len(before) + int(cut) + len(after) == sum(range(20)) + 20 * len("***")
    record.close()


async def test_a_full_disk_costs_the_log_at_the_server_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: LogSpool, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LogSpool, "append", full)
    text, _, spooled = await follow(tmp_path, frame(STDOUT, b"a\n"), frame(STDOUT, b"b\n"))
    assert (text, spooled) == ("a\nb\n", "")
    assert caplog.text.count("No space left") == 1
