"""The folder that an attempt shares with its container, inside its run directory.

<run directory>/   0700: keeps the other users of the host out
  gyoza/           0777: mounted, for whatever user the image runs as
    input.pkl input.json output
"""

import os
import secrets
import stat
from pathlib import Path

from gyoza.worker.errors import OpDirNotRemoved

INPUT_PICKLE = "input.pkl"
INPUT_JSON = "input.json"
OUTPUT = "output"
"""Names of the files in the mounted folder."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_op_dir(run_dir: Path) -> Path:
    """Make the folder to mount in a run directory, in place of one that is there; return it.

    Raises:
        OpDirNotRemoved: If what is there cannot be removed.
        OSError: If it cannot be made.
    """
    mounted = mounted_dir(run_dir)
    remove_op_dir(mounted)
    mounted.mkdir()
    mounted.chmod(0o777)  # whatever the umask is
    return mounted


def mounted_dir(run_dir: Path) -> Path:
    """Return where a run directory has the folder to mount."""
    return run_dir / "gyoza"


def folders_in(op_dir: Path) -> list[str]:
    """Return the names of the folders in a folder; links are none."""
    with os.scandir(op_dir) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def remove_op_dir(op_dir: Path) -> None:
    """Remove a folder, whatever an op has left in it; nothing if there is none.

    Never follows a link; write-protected folders and any depth of nesting are no obstacle. Goes on
    after a failure.

    Raises:
        OpDirNotRemoved: If something cannot be removed, such as another user's files when the
            worker does not run as root.
    """
    try:
        top = os.open(op_dir, _DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_removed(op_dir, error) from error
    try:
        failure = _empty(top)
    finally:
        os.close(top)
    try:
        if failure:
            raise failure
        op_dir.rmdir()
    except OSError as error:
        raise _not_removed(op_dir, error) from error


def _not_removed(op_dir: Path, error: OSError) -> OpDirNotRemoved:
    return OpDirNotRemoved(
        f"The op's folder {op_dir} cannot be removed ({error.strerror}: {error.filename}); "
        "remove it by hand, as root if the op ran as another user."
    )


class _FirstFailure:
    """Context that goes on after an OSError and keeps the first one."""

    def __init__(self) -> None:
        self.error: OSError | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, OSError):
            self.error = self.error or error
            return True
        return False


def _empty(top: int) -> OSError | None:
    """Remove all that is in `top`; return the first failure.

    The folders within a folder are moved up into `top` before it is removed: so no path ever grows
    long and no descriptor is held for each level, however deep an op nests.
    """
    failure = _FirstFailure()
    pending = os.listdir(top)
    while pending:
        with failure:
            name = pending.pop()
            if _remove(name, top):
                continue
            folder = _open_writable(name, top)
            try:
                for child in os.listdir(folder):
                    with failure:
                        if not _remove(child, folder):
                            pending.append(_move(child, folder, top))
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)
    return failure.error


def _remove(name: str, folder: int) -> bool:
    """Remove an entry; return False if it is a folder with something in it."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=folder)
        return True
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError:
        return False
    return True


def _move(name: str, folder: int, top: int) -> str:
    """Move a folder up into `top`; return its new name there."""
    os.close(_open_writable(name, folder))  # for its entry `..` changes
    moved = secrets.token_hex(16)
    os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=top)
    return moved


def _open_writable(name: str, folder: int) -> int:
    try:
        opened = os.open(name, _DIRECTORY, dir_fd=folder)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=folder)
        opened = os.open(name, _DIRECTORY, dir_fd=folder)
    if os.fstat(opened).st_uid == os.geteuid():
        os.fchmod(opened, 0o700)
    return opened
