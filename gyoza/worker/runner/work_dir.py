"""The worker's own directory, held by a lock: one process per worker id on a machine."""

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from gyoza.worker.errors import SettingsError
from gyoza.worker.settings import WorkerSettings


@contextmanager
def hold_work_dir(settings: WorkerSettings) -> Generator[Path]:
    """Make this worker id's directory and hold it for as long as the block lasts.

    Raises:
        SettingsError: If it cannot be made, or another process holds it.
    """
    directory = settings.work_dir / settings.worker_id
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (settings.work_dir / f"{settings.worker_id}.lock").open("w", encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"The work directory {directory} cannot be used ({error.strerror}); "
            "set GYOZA_WORK_DIR to a directory this user may write."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"A worker named {settings.worker_id} is running on this machine already; "
                "give this one another GYOZA_WORKER_ID."
            ) from error
        yield directory
