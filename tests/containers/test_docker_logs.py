"""The engine's answer to `logs`, taken out of its wrapping however the network cuts it."""

import itertools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.worker.containers.docker_logs import HEADER, PIECE, Chunks, KeptLog
from tests.containers.bench import demultiplexed

STAMP = b"2026-01-02T03:04:05.000000006+02:00 "


def frame(stream: int, piece: bytes) -> bytes:
    return HEADER.pack(stream, len(STAMP + piece)) + STAMP + piece


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


def read(body: list[bytes]) -> tuple[bytes, bytes]:
    chunks, log = Chunks(), KeptLog()
    return demultiplexed(b"".join(log.feed(chunks.feed(block)) for block in body))


LOG = chunked(
    frame(1, b"one\n"),
    frame(2, b"err\n") + frame(1, b"\n"),
    frame(1, b"x" * PIECE),
    frame(2, b"y" * PIECE),
    frame(1, b""),
    frame(2, b"rest"),
    frame(1, b"unfinished"),
)


@given(st.sets(st.integers(1, len(LOG) - 1), max_size=8))
def test_a_log_is_the_same_however_it_is_cut(cuts: set[int]) -> None:
    borders = [0, *sorted(cuts), len(LOG)]
    blocks = [LOG[start:end] for start, end in itertools.pairwise(borders)]
    stdout, stderr = read(blocks)
    assert stdout == b"one\n\n" + b"x" * PIECE + b"\nunfinished"
    assert stderr == b"err\n" + b"y" * PIECE + b"rest\n"


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        ([b"x" * PIECE, b"x\n"], b"x" * PIECE + b"x\n"),  # engines that do keep the newline
        ([b"x" * PIECE, b"x" * (PIECE - 1)], b"x" * (2 * PIECE - 1) + b"\n"),
        ([b"x" * PIECE, b"x" * (PIECE - 1), b"y"], b"x" * (2 * PIECE - 1) + b"\ny"),
        ([b"x" * PIECE, b"x" * PIECE], b"x" * 2 * PIECE),
        ([b"x" * (PIECE - 1) + b"\n", b"y"], b"x" * (PIECE - 1) + b"\ny"),
    ],
)
def test_a_long_line_gets_the_newline_that_was_not_kept(pieces: list[bytes], line: bytes) -> None:
    assert read([chunked(*(frame(1, piece) for piece in pieces))]) == (line, b"")


def test_what_the_engine_says_of_its_own_trouble_is_no_output(
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = b"Error grabbing logs: unexpected EOF\n"
    trouble = HEADER.pack(3, len(words)) + words
    with caplog.at_level(logging.WARNING):
        assert read([chunked(frame(1, b"a\n"), trouble)]) == (b"a\n", b"")
    assert "unexpected EOF" in caplog.text


def test_a_body_without_its_last_chunk_is_not_whole() -> None:
    for body, whole in ((LOG[:-5], False), (LOG, True)):
        chunks = Chunks()
        chunks.feed(body)
        assert chunks.ended is whole


def test_what_is_not_in_chunks_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Chunks().feed(b"one\r\n")
