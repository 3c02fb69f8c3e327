"""The worker's own directory, held by a lock: one process per worker id on a machine.

The lock file also says which instances of the worker the server may have met: whoever holds it is
the one that comes after them, and the server takes it at once.
"""

import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from gyoza.worker.errors import SettingsError
from gyoza.worker.settings import WorkerSettings

MAX_BEFORE = 16
"""Instances that are remembered: those that were started and never met the server."""


@dataclass
class Instance:
    """One start of a worker on its machine.

    Attributes:
        directory: The worker's own.
        id: Random, for this start.
        before: Instances that held the directory before, the latest first; empty once the server
            has met this one.
    """

    directory: Path
    lock: int = field(repr=False)
    id: str = field(default_factory=lambda: uuid4().hex)
    before: list[str] = field(default_factory=list[str])

    def note_met(self) -> None:
        """Note that the server has met this instance: the next start comes after it alone."""
        self.before.clear()
        self.write()

    def write(self) -> None:
        """Write who holds the directory, and who has held it."""
        lines = "".join(f"{one}\n" for one in (self.id, *self.before))
        with suppress(OSError):  # a full disk: then the next start may wait for a lease
            os.pwrite(self.lock, lines.encode(), 0)
            os.ftruncate(self.lock, len(lines))


@contextmanager
def hold_work_dir(settings: WorkerSettings) -> Generator[Instance]:
    """Make this worker id's directory and hold it for as long as the block lasts.

    Raises:
        SettingsError: If it cannot be made, is not this user's own, or another process holds it.
    """
    directory = settings.work_dir / settings.worker_id
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_own(settings.work_dir, os.geteuid(), 0)
        _require_own(directory, os.geteuid())
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(settings.work_dir / f"{settings.worker_id}.lock", flags, 0o600)
    except OSError as error:
        raise SettingsError(
            f"The work directory {directory} cannot be used ({error.strerror}); "
            "set GYOZA_WORK_DIR to a directory this user may write."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = os.pread(lock, 4096, 0).decode(errors="replace").split()
        instance = Instance(directory, lock, before=before[:MAX_BEFORE])
        instance.write()
        yield instance
    except BlockingIOError as error:
        raise SettingsError(
            f"A worker named {settings.worker_id} is running on this machine already; "
            "give this one another GYOZA_WORKER_ID."
        ) from error
    finally:
        os.close(lock)


def _require_own(directory: Path, *owners: int) -> None:
    """Do nothing if the directory belongs to one of these users and is no link.

    A worker empties what it finds in its directory: it must be nobody else's.

    Raises:
        SettingsError: If not.
    """
    found = directory.lstat()
    if stat.S_ISLNK(found.st_mode):
        wrong = "is a link: name the directory itself"
    elif found.st_uid not in owners:
        wrong = "belongs to another user: use one of your own"
    else:
        return
    raise SettingsError(f"The work directory {directory} {wrong}, by GYOZA_WORK_DIR.")
