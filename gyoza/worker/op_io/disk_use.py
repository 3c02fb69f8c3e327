"""How much of a disk an op has taken, by the folders that it writes to."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_DEPTH = 100
"""Levels of folders that are looked into; what lies deeper counts as very much."""

MAX_ENTRIES = 2_000_000
"""Files that are looked at; an op that has so many has written very much in any case."""

MAX_S = 10.0
"""Seconds that a look takes at most; what was seen by then counts."""

HIDDEN = 2**60

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class DiskUse:
    """What files and folders take of a disk."""

    size: int = 0
    inodes: int = 0

    def __add__(self, other: "DiskUse") -> "DiskUse":
        return DiskUse(self.size + other.size, self.inodes + other.inodes)


def disk_use(folder: Path) -> DiskUse:
    """Return what is in a folder while an op may write there; blocks, but for `MAX_S` at most.

    Links are not followed. What cannot be looked at counts nothing, and what is nested too deep to
    look at counts as very much: an op that hides what it has written gains nothing by it.
    """
    size = inodes = 0
    until = time.monotonic() + MAX_S
    try:
        for entry in _entries(os.open(folder, _FOLDER), 1):
            if entry is None:
                size, inodes = size + HIDDEN, inodes + HIDDEN
            else:
                size, inodes = size + entry.st_blocks * 512 // max(1, entry.st_nlink), inodes + 1
            if inodes >= MAX_ENTRIES or time.monotonic() > until:
                break
    except OSError:
        pass
    return DiskUse(size, inodes)


def _entries(folder: int, depth: int) -> Iterator[os.stat_result | None]:
    """Yield what there is in a folder that was opened, and close that; None for what is too deep.

    One descriptor for each level; an op that moves folders about meanwhile leads nowhere else.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    yield entry.stat(follow_symlinks=False)
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    inner = os.open(entry.name, _FOLDER, dir_fd=folder)
                except OSError:  # gone, or not ours to look at
                    continue
                if depth < MAX_DEPTH:
                    yield from _entries(inner, depth + 1)
                else:
                    os.close(inner)
                    yield None
    finally:
        os.close(folder)
