"""What a fuzz target is, and what several of them need."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

FORBIDDEN = (
    *("exec", "compile", "import", "code.__new__", "marshal.loads", "pickle.find_class"),
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen"),
    *("os.remove", "os.rename", "os.chmod", "os.putenv", "ctypes.dlopen", "socket.connect"),
)
"""What reading data never does, as Python's audit events call it."""


@dataclass(frozen=True)
class Target:
    """Something to fuzz.

    Attributes:
        check: Raises if a promise does not hold for these bytes.
        seeds: Inputs from which the fuzzer makes others.
        longest: Bytes of the longest input.
    """

    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    longest: int = 4096


class _Guard:
    """Keeps what is executed while it watches. Python has no way to take out an audit hook."""

    def __init__(self) -> None:
        self.watching = False
        self.executed: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.watching and event in FORBIDDEN:
            self.executed.append(f"{event} {ascii(arguments)[:200]}")


_guard = _Guard()


@contextmanager
def nothing_executed() -> Generator[None]:
    """Raise AssertionError at the end of the block if anything was executed in it."""
    _guard.executed.clear()
    _guard.watching = True
    try:
        yield
    finally:
        _guard.watching = False
        assert not _guard.executed, _guard.executed


def cut(data: bytes, sizes: bytes) -> Iterator[bytes]:
    """Yield the data in blocks, of these sizes over and over; of one byte each without any."""
    at = 0
    for size in cycle(sizes or b"\x01"):
        if at >= len(data):
            return
        yield data[at : at + (size or 1)]
        at += size or 1


def fields(data: bytes, count: int) -> list[bytes]:
    """Return parts of an input, each but the last ended by a zero."""
    found = data.split(b"\0", count - 1)
    return [b""] * (count - len(found)) + found
