"""Room on the disk that is kept for the database: given free when the disk is full.

What fills a disk is often an op on the same machine. The server must be able to write all the same:
that a run is cancelled, or has failed of this very thing.
"""

import logging
import os
import time
from pathlib import Path

SIZE = 16 * 1024 * 1024
"""Bytes kept."""

AGAIN_S = 10.0
"""Seconds until the room is taken again after it was given free, at the earliest."""

logger = logging.getLogger(__name__)


class Reserve:
    """A file beside the database that takes room and holds nothing; its methods block.

    Args:
        database: The database's file.
        size: Bytes.
    """

    def __init__(self, database: Path, size: int = SIZE) -> None:
        self._path = database.with_name(f"{database.name}.reserve")
        self._size = size
        self._due = 0.0
        self._kept = False

    def keep(self) -> None:
        """Take the room unless it is taken, or there is hardly more than that on the disk."""
        now = time.monotonic()
        if self._kept or now < self._due:
            return
        self._due = now + AGAIN_S
        try:
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < 2 * self._size:
                return
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(self._path, flags, 0o600)
            try:
                os.posix_fallocate(file, 0, self._size)
            finally:
                os.close(file)
            self._kept = True
        except OSError as error:
            logger.debug("No room can be kept for the database: %s", error)

    def give_free(self) -> bool:
        """Give the room free; return whether there was any."""
        self._kept, self._due = False, time.monotonic() + AGAIN_S
        try:
            self._path.unlink()
        except OSError:
            return False
        logger.warning("The disk of the database is full: the room that was kept for it is used.")
        return True
