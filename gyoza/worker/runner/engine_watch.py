"""Knows whether the container engine answers: while it does not, nothing is claimed."""

import logging

import trio

from gyoza.worker.containers.engine import ContainerEngine
from gyoza.worker.errors import EngineError

PERIOD_S = 10.0
"""Seconds between two questions."""

logger = logging.getLogger(__name__)


class EngineWatch:
    """Asks the engine regularly.

    Attributes:
        up: Whether it answered when last asked.
    """

    def __init__(self, engine: ContainerEngine) -> None:
        self._engine = engine
        self._answered = trio.Event()
        self._answered.set()
        self.up = True

    async def wait_until_up(self) -> None:
        """Wait while the engine does not answer."""
        await self._answered.wait()

    async def serve(self) -> None:
        """Ask until cancelled; says once when the engine goes and once when it is back."""
        while True:
            await trio.sleep(PERIOD_S)
            try:
                await self._engine.info()
            except EngineError as error:
                if self.up:
                    logger.error("%s Nothing is claimed until it answers.", error)
                    self.up, self._answered = False, trio.Event()
            else:
                if not self.up:
                    logger.info("The container engine answers again.")
                    self.up = True
                    self._answered.set()
