"""Holds claims back after runs were given back for want of something, longer each time in a row.

Otherwise it would claim what it has just given back, and that again and again.
"""

import trio

from gyoza.worker.backoff import Backoff
from gyoza.worker.runner.readiness import Obstacle, Readiness


class Shortage:
    """What one worker lacks, or at what its engine fails, as far as runs have met with it.

    Args:
        readiness: Told when claims are to wait and when they may be tried again.
        obstacle: What is in the way meanwhile.
    """

    def __init__(self, readiness: Readiness, obstacle: Obstacle = Obstacle.SHORTAGE) -> None:
        self._readiness = readiness
        self._obstacle = obstacle
        self._backoff = Backoff()
        self._met = trio.Event()

    @property
    def lasts(self) -> bool:
        """Whether no run has had what it takes since the last that had not."""
        return self._backoff.failing

    def meet(self) -> None:
        """Say that a run is given back for something that the worker lacks."""
        self._readiness.block(self._obstacle)
        self._met.set()

    def end(self) -> None:
        """Say that a run has had what it takes: the next shortage is a new one."""
        self._backoff.reset()

    async def serve(self) -> None:
        """Let claims be tried again after a while each time, until cancelled."""
        while True:
            await self._met.wait()
            while self._met.is_set():
                self._met = trio.Event()
                await self._backoff.wait()
            self._readiness.unblock(self._obstacle)
