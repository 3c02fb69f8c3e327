"""Whether this worker may claim: only while nothing stands in the way."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from enum import StrEnum

import trio


class Obstacle(StrEnum):
    """What can stand in the way of claims."""

    ENGINE = "engine"
    ENGINE_FAILS = "engine fails"
    DISK = "disk"
    FENCE = "fence"
    SHORTAGE = "shortage"


class Readiness:
    """Collects the obstacles; claims wait until there is none.

    Attributes:
        changed: Set by the next obstacle that comes or goes.
    """

    def __init__(self) -> None:
        self._obstacles: set[Obstacle] = set()
        self.changed = trio.Event()
        self._scopes: set[trio.CancelScope] = set()

    def blocked_by(self, obstacle: Obstacle) -> bool:
        """Whether this stands in the way."""
        return obstacle in self._obstacles

    def block(self, obstacle: Obstacle) -> None:
        """Put something in the way; ends what requires readiness."""
        self._obstacles.add(obstacle)
        for scope in self._scopes:
            scope.cancel()
        self._tell()

    def unblock(self, obstacle: Obstacle) -> None:
        """Take it out of the way."""
        self._obstacles.discard(obstacle)
        self._tell()

    async def wait(self, obstacles: Iterable[Obstacle] = Obstacle) -> None:
        """Wait until none of these is in the way."""
        while not self._obstacles.isdisjoint(obstacles):
            await self.changed.wait()

    @contextmanager
    def required(self) -> Generator[trio.CancelScope]:
        """Cancel the block as soon as something gets in the way."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()
