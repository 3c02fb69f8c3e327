"""Knows whether there is room on the disks that runs fill: while there is not, nothing is claimed.

The disks of the work directory and, if it is on this machine, of the engine's data.
"""

import logging
from pathlib import Path
from shutil import disk_usage

import trio

from gyoza.worker.runner.readiness import Obstacle, Readiness

PERIOD_S = 10.0
"""Seconds between two looks."""

ANSWER_S = 5.0
"""Seconds that a look may take; a file system that hangs says nothing about its room."""

ENOUGH = 1.1
"""Times the least room there must be until it counts as enough again, lest it goes to and fro."""

MB = 1024 * 1024

logger = logging.getLogger(__name__)


class DiskWatch:
    """Looks at the disks regularly.

    Args:
        directories: On the disks looked at; those that cannot be looked at are left out.
        min_free_mb: Megabytes that must be free on each; 0 looks at none.
        readiness: Told when room gets scarce and when there is enough again.
    """

    def __init__(self, directories: list[Path], min_free_mb: int, readiness: Readiness) -> None:
        self._directories = directories
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

    async def _look(self) -> None:
        needed_mb = self._min_free_mb * (ENOUGH if self.low else 1)
        for directory in self._directories:
            free_mb = await self._free_mb(directory)
            if free_mb is not None and free_mb < needed_mb:
                self._tell_low(directory, free_mb)
                return
        if self.low:
            logger.info("There is room on the disks again.")
            self._readiness.unblock(Obstacle.DISK)

    def _tell_low(self, directory: Path, free_mb: float) -> None:
        if self.low:
            return
        self._readiness.block(Obstacle.DISK)
        logger.warning(
            "Only %d MB are free on the disk of %s: nothing is claimed until there are %d MB; make "
            "room, or set GYOZA_MIN_FREE_MB.",
            free_mb,
            directory,
            self._min_free_mb * ENOUGH,
        )

    async def _free_mb(self, directory: Path) -> float | None:
        """Return the free megabytes; None if they cannot be told."""
        try:
            with trio.move_on_after(ANSWER_S):
                usage = await trio.to_thread.run_sync(
                    disk_usage, directory, abandon_on_cancel=True, limiter=self._thread
                )
                return usage.free / MB
        except (OSError, RuntimeError) as error:  # or no thread to look
            logger.debug("The room in %s cannot be told: %s", directory, error)
        return None
