"""A run's log text on its way to the server: on disk, so that a slow server costs no memory."""

import os
from pathlib import Path

CHUNK = 768 * 1024
"""Bytes that are sent at once; proxies take a megabyte, and JSON makes ordinary text longer."""

MAX_LOG = 64 * 1024 * 1024
"""Bytes of a run's log that are kept for the server; what exceeds it is cut before the tail."""


class LogSpool:
    """An append-only file of UTF-8 text; its methods block and belong in a thread.

    Args:
        path: The file, made if there is none.
        size: Bytes of it that count; what lies beyond is cut off.
        cut: Bytes left out so far, once the cap was reached.
        cap: Bytes it may hold, the tail that `finish` adds not counted.
    """

    def __init__(self, path: Path, size: int = 0, cut: int = 0, cap: int = MAX_LOG) -> None:
        self._cap = cap
        self.cut = cut
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self.size = min(size, os.fstat(self._file).st_size)
        os.ftruncate(self._file, self.size)

    def append(self, text: str) -> None:
        """Add text, or only count it once the cap is reached."""
        data = text.encode()
        if self.cut or self.size + len(data) > self._cap:
            self.cut += len(data)
        else:
            self._write(data)

    def finish(self, tail: str) -> None:
        """If text was cut, say so and add the end of the log."""
        if self.cut:
            end = tail.encode()[-self.cut :].decode(errors="ignore")
            cut = self.cut - len(end.encode())
            mark = f"\n[gyoza: {cut} bytes of the log are cut here]\n" if cut else ""
            self._write((mark + end).encode())
            self.cut = 0

    def read(self, offset: int, size: int = CHUNK) -> str:
        """Return up to `size` bytes of text from `offset`, never ending inside a character."""
        return os.pread(self._file, min(size, self.size - offset), offset).decode(errors="ignore")

    def end(self, size: int) -> str:
        """Return the last `size` bytes of text."""
        return self.read(max(0, self.size - size), size)

    def close(self) -> None:
        """Close the file and leave it where it is."""
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        view, at = memoryview(data), self.size
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written
        self.size = at
