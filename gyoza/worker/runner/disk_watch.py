"""Knows whether there is room on the disks that runs fill: while there is not, nothing is claimed.

The disks of the work directory and, if it is on this machine, of the engine's data.
"""

import logging
import os
from pathlib import Path
from typing import NamedTuple

import trio

from gyoza.worker.runner.readiness import Obstacle, Readiness

FULL = 0.25
"""Part of the room that must be free from which on a disk is as good as full."""

LEAST_INODES = 0.02
"""Part of a disk's inodes that must be free, unless any room is enough."""

PERIOD_S = 10.0
"""Seconds between two looks."""

ANSWER_S = 5.0
"""Seconds that a look may take; a file system that hangs says nothing about its room."""

ENOUGH = 1.1
"""Times the least room there must be until it counts as enough again, lest it goes to and fro."""

MB = 1024 * 1024

logger = logging.getLogger(__name__)


class Room(NamedTuple):
    """What is free on a disk.

    Attributes:
        mb: Megabytes for this user.
        inodes: Files that can be made.
        of_inodes: How many there can be at all; 0 if the file system does not count them.
    """

    mb: float
    inodes: int = 0
    of_inodes: int = 0


def free_room(directory: Path) -> Room:
    """Return what is free on the disk of a directory."""
    told = os.statvfs(directory)
    return Room(told.f_bavail * told.f_frsize / MB, told.f_favail, told.f_files)


class DiskWatch:
    """Looks at the disks regularly.

    Args:
        work_dir: Where the runs have their directories.
        data_root: Where the engine keeps its data; left out if it cannot be looked at, as is the
            work directory.
        min_free_mb: Megabytes that must be free on each; 0 looks at none.
        readiness: Told when room gets scarce and when there is enough again.

    Attributes:
        data_root: See the arguments.
        directories: Both of them.
    """

    def __init__(
        self, work_dir: Path, data_root: Path, min_free_mb: int, readiness: Readiness
    ) -> None:
        self.data_root = data_root
        self.directories = [work_dir, data_root]
        self._min_free_mb = min_free_mb
        self._readiness = readiness
        self._thread = trio.CapacityLimiter(1)

    @property
    def low(self) -> bool:
        """Whether there was too little room at the last look."""
        return self._readiness.blocked_by(Obstacle.DISK)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled; started after the first look."""
        if self._min_free_mb:
            await self._look()
        task_status.started()
        while self._min_free_mb:
            await trio.sleep(PERIOD_S)
            await self._look()

    def is_full(self, room: Room) -> bool:
        """Whether a disk is as good as full: then the op that has filled it is stopped."""
        return room.mb < self._min_free_mb * FULL or self.lacks_inodes(room)

    @staticmethod
    def lacks_inodes(room: Room, factor: float = FULL) -> bool:
        """Whether it has too few inodes: so few that it is full, or by another measure."""
        return room.inodes < room.of_inodes * LEAST_INODES * factor

    async def room(self, directory: Path) -> Room | None:
        """Return what is free on the disk of a directory; None if that cannot be told."""
        try:
            with trio.move_on_after(ANSWER_S):
                return await trio.to_thread.run_sync(
                    free_room, directory, abandon_on_cancel=True, limiter=self._thread
                )
        except (OSError, RuntimeError) as error:  # or no thread to look
            logger.debug("The room in %s cannot be told: %s", directory, error)
        return None

    async def _look(self) -> None:
        factor = ENOUGH if self.low else 1
        for directory in self.directories:
            room = await self.room(directory)
            if room is None:
                continue
            if room.mb < self._min_free_mb * factor:
                self._tell_low(
                    f"Only {room.mb:.0f} MB are free on the disk of {directory}: nothing is "
                    f"claimed until there are {self._min_free_mb * ENOUGH:.0f} MB"
                )
                return
            if self.lacks_inodes(room, factor):
                self._tell_low(
                    f"Only {room.inodes} more files can be made on the disk of {directory}, which "
                    "has few inodes left: nothing is claimed until there are more"
                )
                return
        if self.low:
            logger.info("There is room on the disks again.")
            self._readiness.unblock(Obstacle.DISK)

    def _tell_low(self, sentence: str) -> None:
        if not self.low:
            self._readiness.block(Obstacle.DISK)
            logger.warning("%s; make room, or set GYOZA_MIN_FREE_MB.", sentence)
