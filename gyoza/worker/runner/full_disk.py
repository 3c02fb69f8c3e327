"""Stops the op that has filled a disk, so that its neighbours and the server can go on.

When a disk is as good as full, bytes or inodes, each op is asked what it has written there: to its
`/gyoza`, and to its container where the engine's data is on that disk. If all together would make
room, the op that has written most is stopped and its run fails with `DISK_FULL`; then the disk is
looked at again. If they would not, something else has filled it, and no op is to blame.
"""

import logging
from pathlib import Path

import trio

from gyoza.worker.errors import EngineError
from gyoza.worker.execution_pipeline.run_scope import RunScope
from gyoza.worker.lacks import in_thread
from gyoza.worker.op_io.disk_use import DiskUse, disk_use
from gyoza.worker.op_io.op_dir import mounted_dir
from gyoza.worker.runner.disk_watch import MB, Room
from gyoza.worker.runner.worker import Worker

MAX_LOG = 1000 * MB
"""Bytes of its output that the engine keeps of a container, at most."""

PERIOD_S = 1.0
"""Seconds between two looks; an op can fill gigabytes in that time."""

logger = logging.getLogger(__name__)


async def guard_disks(worker: Worker) -> None:
    """Guard the disks that are watched, until cancelled."""
    guard = DiskGuard(worker)
    while worker.settings.min_free_mb:
        if worker.active.count:  # an idle worker has nothing to stop
            await guard.look()
        await trio.sleep(PERIOD_S)


class DiskGuard:
    """Guards the disks of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._thread = trio.CapacityLimiter(1)

    async def look(self) -> None:
        """Look at each disk, and stop at most one op."""
        watch = self._worker.disk_watch
        for directory in watch.directories:
            room = await watch.room(directory)
            if room is not None and watch.is_full(room):
                await self._stop_one(directory, room)
                return

    async def _stop_one(self, directory: Path, room: Room) -> None:
        scopes = self._worker.active.at_work
        if any(scope.filled and not scope.made_room for scope in scopes):
            return  # its files are about to go
        uses = [(await self._use(scope, directory), scope) for scope in scopes if scope.limit]
        size, inodes = sum(use.size for use, _ in uses), sum(use.inodes for use, _ in uses)
        more = Room(room.mb + size / MB, room.inodes + inodes, room.of_inodes)
        if not uses or self._worker.disk_watch.is_full(more):
            logger.debug("The ops have not filled the disk of %s.", directory)
            return
        by_inodes = self._worker.disk_watch.lacks_inodes(room)
        use, scope = max(uses, key=lambda one: one[0].inodes if by_inodes else one[0].size)
        told = f"{use.inodes} files" if by_inodes else f"{use.size / MB:.0f} MB"
        sentence = (
            f"The op has filled a disk of its worker: it had written {told}, more than any other "
            "op there."
        )
        logger.warning("Run %s is stopped: %s", scope.identity.run_id, sentence)
        scope.stop_for_disk(sentence)

    async def _use(self, scope: RunScope, directory: Path) -> DiskUse:
        """Return what an op has written to the disk of a directory."""
        watch, use = self._worker.disk_watch, DiskUse()
        if await self._same_disk(self._worker.settings.work_dir, directory):
            mounted = mounted_dir(scope.record.directory)
            use += await in_thread(disk_use, mounted, limiter=self._thread)
        if await self._same_disk(watch.data_root, directory):
            try:
                use += await scope.tools.engine.written(scope.container_id)
            except EngineError as error:
                logger.debug("What run %s has written: %s", scope.identity.run_id, error)
            use += DiskUse(min(sum(scope.record.position.taken), MAX_LOG))
        return use

    async def _same_disk(self, one: Path, other: Path) -> bool:
        def compare() -> bool:
            return one == other or one.stat().st_dev == other.stat().st_dev

        try:
            return await in_thread(compare, limiter=self._thread)
        except OSError:
            return False
