"""Knows whether the container engine answers: while it does not, nothing is claimed."""

import logging

import trio

from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.engine import ContainerEngine
from gyoza.worker.containers.engine_fit import require_fit
from gyoza.worker.errors import EngineError, EngineUnavailable, SettingsError
from gyoza.worker.policy import ContainerPolicy
from gyoza.worker.runner.readiness import Obstacle, Readiness

PERIOD_S = 10.0
"""Seconds between two questions while the engine answers."""

AWAY_PERIOD_S = 2.0
"""Seconds between two questions while it does not."""

ANSWER_S = 5.0
"""Seconds in which an engine that is well answers."""

logger = logging.getLogger(__name__)


class EngineWatch:
    """Asks the engine regularly, and at once when somebody doubts it.

    Args:
        engine: The engine, taken to be well until it is asked.
        readiness: Told when the engine goes and when it is back.
        policy: Names what the engine must have.
    """

    def __init__(
        self, engine: ContainerEngine, readiness: Readiness, policy: ContainerPolicy
    ) -> None:
        self._engine = engine
        self._readiness = readiness
        self._policy = policy
        self._doubted = trio.Event()

    @property
    def up(self) -> bool:
        """Whether it answered when last asked, and had what containers need."""
        return not self._readiness.blocked_by(Obstacle.ENGINE)

    @property
    def well(self) -> bool:
        """Whether it is up, and has not just failed at runs."""
        return self.up and not self._readiness.blocked_by(Obstacle.ENGINE_FAILS)

    def doubt(self) -> None:
        """Have the engine asked now, since a call has just failed."""
        self._doubted.set()

    async def serve(self) -> None:
        """Ask until cancelled; says once when the engine goes and once when it is back."""
        while True:
            with trio.move_on_after(PERIOD_S if self.up else AWAY_PERIOD_S):
                await self._doubted.wait()
            self._doubted = trio.Event()
            try:
                await self._ask()
            except (EngineError, SettingsError) as error:
                if self.up:
                    logger.error("%s Nothing is claimed until that is well.", error)
                    self._readiness.block(Obstacle.ENGINE)
            else:
                if not self.up:
                    logger.info("The container engine is well again.")
                    self._readiness.unblock(Obstacle.ENGINE)

    async def hear_exits(self) -> None:
        """Let the engine tell of exits, and again whenever it has stopped, until cancelled."""
        backoff = Backoff()
        while True:
            await self._readiness.wait({Obstacle.ENGINE})
            try:
                await self._engine.hear_exits()
            except EngineError as error:
                logger.debug("Exits are waited for one by one: %s", error)
            else:
                backoff.reset()
                self.doubt()
            await backoff.wait()

    async def _ask(self) -> None:
        with trio.move_on_after(ANSWER_S):
            await require_fit(self._engine, await self._engine.info(), self._policy)
            return
        raise EngineUnavailable(f"The container engine has not answered within {ANSWER_S:g} s.")
