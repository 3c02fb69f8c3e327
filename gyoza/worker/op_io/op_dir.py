"""The folder that an attempt shares with its container, inside its run directory.

<run directory>/   0700: keeps the other users of the host out
  gyoza/           0777: mounted, for whatever user the image runs as
    input.pkl input.json output
"""

import os
import secrets
from collections.abc import Callable
from itertools import islice
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


def folders_in(op_dir: Path, most: int) -> list[str]:
    """Return the names of the folders in a folder, or of `most` of them; links are none."""
    with os.scandir(op_dir) as entries:
        folders = (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        return [*islice(folders, most)]


def remove_op_dir(op_dir: Path) -> None:
    """Remove a folder, whatever an op has left in it; nothing if there is none.

    Never follows a link; write-protected folders and any depth of nesting are no obstacle. Goes on
    after a failure.

    Raises:
        OpDirNotRemoved: If something cannot be removed, such as another user's files when the
            worker does not run as root.
    """
    if not os.path.lexists(op_dir):
        return
    try:
        top = _open_writable(op_dir)
        try:
            emptying = _Emptying(top)
            emptying.run()
        finally:
            os.close(top)
        if emptying.failure:
            raise emptying.failure
        op_dir.rmdir()
    except OSError as error:
        raise _not_removed(op_dir, error) from error


def _not_removed(op_dir: Path, error: OSError) -> OpDirNotRemoved:
    return OpDirNotRemoved(
        f"The op's folder {op_dir} cannot be removed ({error.strerror}: {error.filename}); "
        "remove it by hand, as root if the op ran as another user."
    )


class _Emptying:
    """Empties a folder, going on after failures; keeps the first that remains.

    The folders within a folder are moved up into the top before it is removed: so no path ever
    grows long and no descriptor is held for each level, however deep an op nests. Names are taken
    as they are read: a million of them need no memory.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._progress = True
        self.failure: OSError | None = None

    def run(self) -> None:
        """Go through the folder until nothing more can be removed.

        Once is not enough: what is moved, or changes place while others go, may be passed over.
        """
        while self._progress:
            self._progress, self.failure = False, None
            self._each(self._top, self._remove)

    def _each(self, folder: int, take_away: Callable[[os.DirEntry[str], int], None]) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    take_away(entry, folder)
                    self._progress = True
                except OSError as error:
                    self.failure = self.failure or error

    def _remove(self, entry: os.DirEntry[str], top: int) -> None:
        if _is_removed(entry, top):
            return
        folder = _open_writable(entry.name, top)
        try:
            self._each(folder, self._remove_or_move)
        finally:
            os.close(folder)
        os.rmdir(entry.name, dir_fd=top)

    def _remove_or_move(self, entry: os.DirEntry[str], folder: int) -> None:
        if _is_removed(entry, folder):
            return
        os.close(_open_writable(entry.name, folder))  # for its entry `..` changes
        os.rename(entry.name, secrets.token_hex(16), src_dir_fd=folder, dst_dir_fd=self._top)


def _is_removed(entry: os.DirEntry[str], folder: int) -> bool:
    """Remove an entry; return False if it is a folder with something in it."""
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.name, dir_fd=folder)
        return True
    try:
        os.rmdir(entry.name, dir_fd=folder)
    except OSError:
        return False
    return True


def _open_writable(name: str | Path, folder: int | None = None) -> int:
    try:
        opened = os.open(name, _DIRECTORY, dir_fd=folder)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=folder)
        opened = os.open(name, _DIRECTORY, dir_fd=folder)
    if os.fstat(opened).st_uid == os.geteuid():
        os.fchmod(opened, 0o700)
    return opened
