"""A small record in a file of its own that is rewritten in place, in one system call."""

import json
import os
from pathlib import Path
from typing import Any

SIZE = 256
"""Bytes: within one page, so that a process killed in the middle leaves the old or the new."""


class Slot:
    """A record of small numbers; its methods belong in a thread.

    Args:
        path: The file, made if there is none.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)

    def read(self) -> dict[str, Any]:
        """Return the record; empty if none was ever written."""
        try:
            return json.loads(os.pread(self._file, SIZE, 0))
        except ValueError:
            return {}

    def write(self, record: dict[str, Any]) -> None:
        """Replace the record.

        Raises:
            OSError: If there is no room.
        """
        os.pwrite(self._file, json.dumps(record).encode().ljust(SIZE), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
