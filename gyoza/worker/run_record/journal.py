"""An append-only file of facts, one JSON object a line; only its last line can be torn."""

import json
import os
import threading
from pathlib import Path
from typing import Any

Fact = dict[str, Any]


class Journal:
    """A journal; its methods block and belong in a thread.

    Args:
        path: The file, made if there is none. A torn last line is cut off.

    Attributes:
        facts: What was in it when it was opened, in order.
        size: Bytes in it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self.facts: list[Fact] = []
        self.size = 0
        with open(self._file, "rb", closefd=False) as file:
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            fact = _parse(line)
            if fact is None:
                break
            self.facts.append(fact)
            self.size += len(line)
        os.ftruncate(self._file, self.size)

    def append(self, *facts: Fact, sync: bool = False) -> None:
        """Add facts, all or none of them; with `sync` they are on the disk when this returns.

        Raises:
            OSError: If there is no room; then nothing is added.
        """
        lines = "".join(json.dumps(fact, separators=(",", ":")) + "\n" for fact in facts).encode()
        with self._lock:
            try:
                written = 0
                while written < len(lines):
                    written += os.write(self._file, lines[written:])
                if sync:
                    os.fdatasync(self._file)
            except OSError:
                os.ftruncate(self._file, self.size)
                raise
            self.size += len(lines)

    def sync(self) -> None:
        """Force what was added to the disk.

        Raises:
            OSError: If the disk refuses.
        """
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _parse(line: bytes) -> Fact | None:
    """Return the fact, or None for a line that was not written to its end."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:  # room that a power cut has left without its content
        return None
