"""Targets: what a container writes, in blocks that are cut anywhere."""

import json
import struct
from collections.abc import Iterable, Iterator
from unittest import mock

from gyoza.worker.logs import events
from gyoza.worker.logs.demultiplexer import Demultiplexer
from gyoza.worker.logs.events import PREFIX, OpEvent
from gyoza.worker.logs.masker import MASK, Masker, Secrets
from gyoza.worker.logs.streams import TextStream
from tests.fuzz.target import Target, cut, fields, nothing_executed

MAX_EVENT = 100
"""Bytes; few, so that the fuzzer finds out about longer lines."""

LEAST = 4
"""Characters of a secret, so that the fuzzer meets more of them."""


def check_frames(data: bytes) -> None:
    """The engine's frames come apart in one way, wherever their blocks are cut."""
    sizes, data = fields(data, 2)
    expected = _joined(_by_the_book(data))
    assert _joined(Demultiplexer().feed(data)) == expected
    demultiplexer = Demultiplexer()
    pieces = (piece for block in cut(data, sizes) for piece in demultiplexer.feed(block))
    assert _joined(pieces) == expected


def check_lines(data: bytes) -> None:
    """Text and events are the same, in the same order, wherever blocks are cut."""
    sizes, data = fields(data, 2)
    with mock.patch.object(events, "MAX_EVENT", MAX_EVENT), nothing_executed():
        expected = _told(data, [len(data)])
        assert _told(data, sizes) == expected
    found = [item for item in expected if isinstance(item, OpEvent)]
    if not found:
        assert "".join(map(str, expected)) == data.decode(errors="replace")
    for event in found:
        assert event.type in ("INFO", "PROGRESS", "ERROR")
        assert type(event.msg) is (int if event.type == "PROGRESS" else str)
        json.dumps(event.payload, allow_nan=False).encode()


def check_secrets(data: bytes) -> None:
    """No secret is in what comes out, which is the same wherever blocks are cut."""
    first, second, sizes, data = fields(data.replace(MASK[:1], b"+"), 4)
    values = [value.decode(errors="surrogateescape") for value in (first, second)]
    secrets = Secrets(values, least=LEAST)
    expected = _masked(secrets, [data])
    assert _masked(secrets, cut(data, sizes)) == expected
    for value in values:
        text = value.strip()
        assert len(text) < LEAST or text.encode(errors="surrogateescape") not in expected
    if expected == data:
        assert not any(True for _ in secrets.spans(data))


def _joined(pieces: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    joined: list[tuple[int, bytes]] = []
    for stream, piece in pieces:
        if joined and joined[-1][0] == stream:
            piece = joined.pop()[1] + piece
        joined.append((stream, piece))
    return joined


def _by_the_book(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 8:
        stream, length = struct.unpack_from(">BxxxL", data)
        if piece := data[8 : 8 + length]:
            yield 2 if stream == 2 else 1, piece
        data = data[8 + length :]


def _told(data: bytes, sizes: bytes | list[int]) -> list[str | OpEvent]:
    stream = TextStream(Secrets())
    told: list[str | OpEvent] = []
    blocks = cut(data, sizes) if isinstance(sizes, bytes) else [data]
    for item in (*(item for block in blocks for item in stream.feed(block)), *stream.close()):
        if isinstance(item, str) and told and isinstance(told[-1], str):
            told[-1] += item
        elif item:
            told.append(item)
    assert stream.seen == len(data)
    return told


def _masked(secrets: Secrets, blocks: Iterable[bytes]) -> bytes:
    masker = Masker(secrets)
    return b"".join([*map(masker.feed, blocks), masker.flush()])


def _event(**fields: object) -> bytes:
    return PREFIX + json.dumps(fields).encode() + b"\n"


_LINES = (
    b"\x03\x01\0plain\n" + _event(type="PROGRESS", msg=50) + "\u00fc\U0001f95f\n".encode(),
    b"\x07\0" + _event(type="INFO", msg="a", payload={"b": [1.5]}) + _event(type="ERROR", msg="x"),
    b"\x05\0" + _event(type="INFO", msg="a" * 80) + b"::gyoza::{}\n\r\x1b[1m\xff::gyoza::",
    b"\x02\0" + _event(type="COMPLETED", msg="x") + b'::gyoza::{"type": "PROGRESS", "msg": true}',
)
_FRAMES = (
    b"\x05\0" + struct.pack(">BxxxL", 1, 3) + b"abc" + struct.pack(">BxxxL", 2, 2) + b"de",
    b"\x01\0" + struct.pack(">BxxxL", 0, 0) + struct.pack(">BxxxL", 2, 1) + b"a",
)

FRAMES = Target(check_frames, _FRAMES)
LINES = Target(check_lines, _LINES)
SECRETS = Target(
    check_secrets,
    (b"abcd\0cdef\0\x04\0abcdefabc", b"aaaa\0\0\x03\0aaaaaaaaab", b"line one\nline two\0x\0\x02\0"),
    longest=512,
)
