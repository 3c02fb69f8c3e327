"""Standard streams that are read slowly, written by several, or closed."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import pytest
import trio

from gyoza.cli.errors import ExitCode
from gyoza.cli.main import main
from gyoza.cli.text_output import TextOutput

TEXT = "größer\n" * 50_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield reader, stream


def read_all(reader: int, size: int) -> str:
    """Read slowly: no more than a pipe holds at a time."""
    data = b""
    while len(data) < size:
        data += os.read(reader, 4096)
    return data.decode()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_gets_all_of_a_text_however_small_it_is(
    pipe: tuple[int, TextIO], blocking: bool
) -> None:
    reader, stream = pipe
    os.set_blocking(stream.fileno(), blocking)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(TextOutput(stream).write, TEXT)
        assert read_all(reader, len(TEXT.encode())) == TEXT
        writing.result(timeout=60)


def test_what_was_written_to_the_stream_before_comes_before(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    stream.write("before, ")
    TextOutput(stream).write("after")
    assert read_all(reader, 13) == "before, after"


def test_two_streams_of_one_file_are_not_mixed_up(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    with os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8") as other:
        first = TextOutput(stream)
        second = TextOutput(other, first)
        with ThreadPoolExecutor(2) as pool:
            writing = [pool.submit(first.write, TEXT), pool.submit(second.write, TEXT.upper())]
            shown = read_all(reader, 2 * len(TEXT.encode()))
            assert shown in (TEXT + TEXT.upper(), TEXT.upper() + TEXT)
            for each in writing:
                each.result(timeout=60)


def test_an_encoding_that_is_too_narrow_does_what_its_stream_was_told(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="ascii", errors="replace") as stream:
        TextOutput(stream).write("grüße\n")
    assert (tmp_path / "out").read_bytes() == b"gr??e\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
async def test_a_command_whose_streams_are_closed_is_no_traceback(closed: str) -> None:
    command = f"{sys.executable} -m gyoza.cli.main runs list --server-url http://127.0.0.1:9 "
    with trio.fail_after(200):
        done = await trio.run_process(
            ["sh", "-c", command + closed], capture_stdout=True, capture_stderr=True, check=False
        )
    assert done.returncode == ExitCode.SERVER
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr
    assert ("2>&-" in closed) != (b"does not answer" in done.stderr)


def test_a_command_without_streams_gets_some_that_go_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["--version"]) == ExitCode.OK
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
