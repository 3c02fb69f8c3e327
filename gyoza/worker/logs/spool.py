"""A run's log text on its way to the server: on disk, so that a slow server costs no memory.

The file has three parts:

    0             cap                 cap + LINE + kept
    | first text  | (the log's end)   | a ring of 2 * kept bytes |

The server gets the first text. Once that has reached the cap, text goes to the ring, over what is
oldest there, until `finish` puts the log's end behind the first text. The ring has room for twice
what is kept of the end, so that a block on its way to it spares the end before that block: this is
what the next start finds if the process was killed before it had noted the block.
"""

import os
from pathlib import Path

CHUNK = 768 * 1024
"""Bytes that are sent at once; proxies take a megabyte, and JSON makes ordinary text longer."""

MAX_LOG = 64 * 1024 * 1024
"""Bytes of a run's log that are kept for the server; what exceeds it is cut before the end."""

MAX_END = 1024 * 1024
"""Bytes that are kept of the end of a log that was cut."""

LINE = 4096
"""Bytes that suffice for the line that tells of the cut."""


class LogSpool:
    """A file of UTF-8 text; its methods block and belong in a thread.

    Args:
        path: The file, made if there is none.
        size: Bytes of the first text that count; what lies beyond is cut off.
        cut: Bytes left out so far, once the cap was reached.
        cap: Bytes that the first text may have.
        ringed: Bytes written to the ring so far; 0 also for a file of a version that had none.
        kept: Bytes that are kept of the end.

    Attributes:
        size: Bytes of text that the server gets.
        cut: See the arguments; 0 after `finish`.
        ringed: See the arguments; 0 after `finish`.
    """

    def __init__(
        self,
        path: Path,
        size: int = 0,
        cut: int = 0,
        cap: int = MAX_LOG,
        *,
        ringed: int = 0,
        kept: int = MAX_END,
    ) -> None:
        self._cap = cap
        self._kept = kept
        self.cut = cut
        self.ringed = ringed
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self.size = min(size, os.fstat(self._file).st_size)
        if not ringed:
            os.ftruncate(self._file, self.size)

    def append(self, text: str) -> None:
        """Add text up to the cap; what exceeds it is counted, and its end goes to the ring.

        The next start goes on from `size`, `cut` and `ringed`: the caller notes them each time.
        """
        data = text.encode()
        room = 0 if self.cut else max(0, self._cap - self.size)
        first = data if len(data) <= room else _whole_characters(data[:room])
        self._write(first)
        if rest := data[len(first) :]:
            self._write_to_ring(rest[-self._kept :])
            self.cut += len(rest)

    def finish(self, tail: str) -> None:
        """If text was cut, say so and add the end of the log.

        Args:
            tail: The end of the whole text; of this as much as is kept.
        """
        if self.cut:
            end = tail.encode()[-min(self.cut, self._kept) :].decode(errors="ignore")
            cut = self.cut - len(end.encode())
            line = f"\n[gyoza: {cut} bytes of the log are cut here]\n" if cut else ""
            self._write((line + end).encode())
            self.cut = self.ringed = 0

    def read(self, offset: int, size: int = CHUNK) -> str:
        """Return up to `size` bytes of text from `offset`, never ending inside a character."""
        return os.pread(self._file, min(size, self.size - offset), offset).decode(errors="ignore")

    def end(self, size: int) -> str:
        """Return the last `size` bytes of the whole text, or what is kept of them."""
        ring = self._read_ring(min(size, self.ringed, self._kept))
        before = min(size - len(ring), self.size) if len(ring) == self.cut else 0
        first = os.pread(self._file, before, self.size - before)
        return (first + ring).decode(errors="ignore")

    def close(self) -> None:
        """Close the file and leave it where it is."""
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        self._write_at(self.size, data)
        self.size += len(data)

    def _write_to_ring(self, data: bytes) -> None:
        for offset, length in self._places(self.ringed, len(data)):
            self._write_at(offset, data[:length])
            data = data[length:]
            self.ringed += length

    def _read_ring(self, length: int) -> bytes:
        """Return the last bytes written to the ring."""
        places = self._places(self.ringed - length, length)
        return b"".join(os.pread(self._file, length, offset) for offset, length in places)

    def _places(self, at: int, length: int) -> list[tuple[int, int]]:
        """Return offsets and lengths in the file for bytes of the ring, numbered from `at` on."""
        ring, size = self._cap + LINE + self._kept, 2 * self._kept
        before_its_end = min(length, size - at % size)
        return [(ring + at % size, before_its_end), (ring, length - before_its_end)]

    def _write_at(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written


def _whole_characters(data: bytes) -> bytes:
    """Return the UTF-8 text without a character at its end that is not whole."""
    return data.decode(errors="ignore").encode()
