"""A run's log text on its way to the server: on disk, so that a slow server costs no memory."""

import os
import tempfile
from pathlib import Path

CHUNK = 256 * 1024
"""Bytes that are sent at once."""

MAX_LOG = 64 * 1024 * 1024
"""Bytes of a run's log that are kept for the server; what exceeds it is cut before the tail."""


class LogSpool:
    """An append-only file of UTF-8 text; its methods block and belong in a thread.

    The file has no name, so nothing of it can be left behind.

    Args:
        directory: Where there is room for it.
        cap: Bytes it may hold, the tail that `finish` adds not counted.
    """

    def __init__(self, directory: Path, cap: int = MAX_LOG) -> None:
        self._cap = cap
        self._cut = 0
        self.size = 0
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  see close

    def append(self, text: str) -> None:
        """Add text, or only count it once the cap is reached."""
        data = text.encode()
        if self._cut or self.size + len(data) > self._cap:
            self._cut += len(data)
        else:
            self._write(data)

    def finish(self, tail: str) -> None:
        """If text was cut, say so and add the end of the log."""
        if self._cut:
            end = tail.encode()[-self._cut :].decode(errors="ignore")
            cut = self._cut - len(end.encode())
            self._write(f"\n[gyoza: {cut} bytes of the log are cut here]\n{end}".encode())
            self._cut = 0

    def read(self, offset: int) -> str:
        """Return up to `CHUNK` bytes of text from `offset`, never ending inside a character."""
        return os.pread(self._file.fileno(), CHUNK, offset).decode(errors="ignore")

    def close(self) -> None:
        """Close the file, which frees its room."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            self.size += written
            view = view[written:]
