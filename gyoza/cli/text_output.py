"""Writes text to a standard stream that may be read slowly, or not at all for a while."""

import os
import select
from threading import Lock
from typing import TextIO


class TextOutput:
    """A standard stream whose reader sets the pace.

    What is written goes to the system at once and stays in no buffer: a thread that waits for the
    reader can be left behind, and nothing waits for the reader when the process ends.

    Args:
        stream: Where text goes.
        beside: Another one; what is written to the same file by both is not mixed up.

    Attributes:
        isatty: Whether a terminal shows it.
    """

    def __init__(self, stream: TextIO, beside: "TextOutput | None" = None) -> None:
        self._stream = stream
        self.isatty = stream.isatty()
        self._file = _file_of(stream)
        shared = beside is not None and self._file is not None and self._file == beside._file
        self._lock = beside._lock if beside is not None and shared else Lock()

    def shares(self, other: "TextOutput") -> bool:
        """Return whether both write to the same file."""
        return self is other or (self._file is not None and self._file == other._file)

    def write(self, text: str) -> None:
        """Write text after all that other threads still write; wait until it is taken.

        Raises:
            BrokenPipeError: If its reader has gone.
        """
        with self._lock:
            self._stream.flush()
            if self._file is None:
                self._stream.write(text)
                return
            encoding, errors = self._stream.encoding, self._stream.errors or "strict"
            left = memoryview(text.encode(encoding, errors))
            while left:
                left = left[_write_some(self._stream.fileno(), left) :]


def _file_of(stream: TextIO) -> tuple[int, int] | None:
    """Return which file a stream writes to; None if that is in this process."""
    try:
        found = os.fstat(stream.fileno())
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _write_some(descriptor: int, data: memoryview) -> int:
    try:
        return os.write(descriptor, data)
    except BlockingIOError:  # another program has made the file so that nobody waits at it
        select.select([], [descriptor], [])
        return 0
