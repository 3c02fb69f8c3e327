"""The lock of a database: one server has it at a time, since some of what it knows is in memory."""

import fcntl
import os
from pathlib import Path

from gyoza.server.errors import DatabaseError


class DatabaseLock:
    """A lock beside the file, which ends with the process that has it.

    Args:
        database: The file.

    Raises:
        DatabaseError: If another server has it.
        OSError: If the lock cannot be made.
    """

    def __init__(self, database: Path) -> None:
        path = database.resolve()
        path = path.with_name(f"{path.name}.lock")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._descriptor, 20).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise DatabaseError(
                f"Another server (process {owner or 'unknown'}) uses the database {database}; "
                "stop it, or set GYOZA_DATABASE_URL to another file."
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another server have the database."""
        os.close(self._descriptor)
