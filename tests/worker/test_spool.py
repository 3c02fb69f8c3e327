"""The log text on disk: its first bytes and its last, whatever is between and whoever is killed."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gyoza.models import OpRun
from gyoza.worker.logs.spool import MAX_END, MAX_LOG, LogSpool
from gyoza.worker.logs.tail import MAX_TAIL, Tail
from gyoza.worker.run_record import Position, RunRecord

CUT = "\n[gyoza: {} bytes of the log are cut here]\n"


def finished(text: str, cap: int, kept: int) -> str:
    """Return what is to be made of a log."""
    first = text.encode()[:cap].decode(errors="ignore")
    rest = text.encode()[len(first.encode()) :]
    end = rest[-kept:].decode(errors="ignore")
    cut = len(rest) - len(end.encode())
    return first + (CUT.format(cut) if cut else "") + end


def whole(spool: LogSpool) -> str:
    return spool.read(0, spool.size)


def reopen(spool: LogSpool, path: Path) -> LogSpool:
    """Open it as the next start of the worker does."""
    spool.close()
    return LogSpool(path, spool.size, spool.cut, ringed=spool.ringed)


@pytest.mark.parametrize("character", ["x", "é", "€", "🍜"])
def test_the_first_64_mib_are_kept_to_the_last_character_that_fits_and_the_last_mib(
    character: str, tmp_path: Path
) -> None:
    spool, tail = LogSpool(tmp_path / "log"), Tail()
    line = character * 33 + "\n"
    block = line * (1_570_980 // len(line.encode()))
    blocks = 50
    for _ in range(blocks):
        spool.append(block)
        tail.add(block)
    assert MAX_LOG - len(character.encode()) < spool.size <= MAX_LOG
    spool.finish(tail.end())
    text = whole(spool)
    spool.close()
    assert text == finished(block * blocks, MAX_LOG, MAX_END)


def test_a_log_that_just_fits_is_not_cut(tmp_path: Path) -> None:
    spool = LogSpool(tmp_path / "log", cap=10)
    for text in ("01234", "56789", ""):
        spool.append(text)
    spool.finish("56789")
    assert whole(spool) == "0123456789"
    spool.close()


def test_what_exceeds_the_spool_is_cut_with_a_word_and_the_end_is_kept(tmp_path: Path) -> None:
    spool = LogSpool(tmp_path / "log", cap=10, kept=7)
    for text in ("01234567", "89cut away", "the end"):
        spool.append(text)
    spool.finish("cut awaythe end")
    assert whole(spool) == "0123456789" + CUT.format(8) + "the end"
    spool.finish("nothing was cut since")
    assert whole(spool).endswith("the end")
    spool.close()


def test_a_chunk_of_the_spool_never_ends_inside_a_character(tmp_path: Path) -> None:
    spool = LogSpool(tmp_path / "log")
    spool.append("éé€")
    assert spool.read(0, 4) == "éé"
    assert spool.read(4, 4) == "€"
    spool.close()


@pytest.mark.parametrize("flood", [0, 5, 900_000, 3_000_000, 40_000_000])
def test_the_end_of_a_long_log_outlives_the_process(flood: int, tmp_path: Path) -> None:
    first, lost = "a" * (MAX_LOG - 7) + "of many", "b" * flood
    spool = LogSpool(tmp_path / "log")
    for text in (first, lost):
        spool.append(text)
    again = reopen(spool, tmp_path / "log")
    tail = Tail.after(again)
    assert (first + lost).endswith(tail.end())
    assert len(tail.end()) == MAX_TAIL
    assert tail.text().startswith("[gyoza: the log before this is cut here]\n")
    for text in ("c" * 10, "the end"):
        again.append(text)
        tail.add(text)
    again.finish(tail.end())
    text = whole(again)
    again.close()
    assert text == finished(f"{first}{lost}{'c' * 10}the end", MAX_LOG, MAX_END)


def test_a_short_log_is_recalled_whole(tmp_path: Path) -> None:
    spool = LogSpool(tmp_path / "log")
    spool.append("all of it\n")
    again = reopen(spool, tmp_path / "log")
    assert Tail.after(again).text() == "all of it\n"
    again.close()


def test_a_directory_of_a_version_without_the_ring_is_opened(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first textnot counted")
    spool = LogSpool(tmp_path / "log", size=10, cut=1000, cap=10)
    tail = Tail.after(spool)
    assert tail.end() == ""
    for text in ("more", " text"):
        spool.append(text)
        tail.add(text)
    assert spool.end(100) == "more text"
    spool.finish(tail.end())
    assert whole(spool) == "first text" + CUT.format(1000) + "more text"
    spool.close()


class Killed(BaseException):
    """Stands for SIGKILL."""


@contextmanager
def killed_at(write: int, part: float) -> Generator[None]:
    """Kill the process in one of its next writes; of a long one that part is done before."""
    real, left = os.pwrite, [write]

    def pwrite(file: int, data: bytes | memoryview, offset: int) -> int:
        view = memoryview(data)
        left[0] -= 1
        if left[0] >= 0:
            return real(file, view, offset)
        # A slot is within a page, which the system writes whole or not at all.
        done = round(part) * len(view) if len(view) == 256 else int(part * len(view))
        real(file, view[:done], offset)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        yield


TEXTS = st.text("ab\né€🍜", min_size=10, max_size=80)


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(TEXTS, max_size=4).map("".join),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    kills=st.lists(st.tuples(st.integers(0, 12), st.floats(0, 1)), min_size=1, max_size=5),
    cap=st.integers(0, 50),
    kept=st.integers(4, 30),
)
def test_a_log_is_the_same_whenever_its_worker_was_killed(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    sizes: list[int],
    kills: list[tuple[int, float]],
    cap: int,
    kept: int,
) -> None:
    directory = tmp_path_factory.mktemp("run") / "r.1"
    spool = partial(LogSpool, cap=cap, kept=kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gyoza.worker.run_record.record.LogSpool", spool)
        record = RunRecord.create(directory, OpRun("r", image="i", inputs={}))
        for kill in [*kills, (10**6, 0.0)]:
            try:
                with killed_at(*kill):
                    _take(record, text, sizes)
            except Killed:
                pass
            record.close()
            record = RunRecord.load(directory)
            taken = text[: record.position.taken[0]].encode()
            assert Tail.after(record.spool).end().endswith(taken[-kept:].decode(errors="ignore"))
        assert whole(record.spool) == finished(text, cap, kept)
        record.close()


def _take(record: RunRecord, text: str, sizes: list[int]) -> None:
    """Take the rest of the text in blocks of these sizes, and then its end."""
    tail, at, number = Tail.after(record.spool), record.position.taken[0], 0
    while at < len(text):
        block = text[at : at + sizes[number % len(sizes)]]
        at, number = at + len(block), number + 1
        tail.add(block)
        record.note_output(block, [], Position((at, 0)))
    record.note_output("", [], Position((at, 0)), end=tail.end())
