"""Outages of the engine: what is asked of it meanwhile is asked again when it is back."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gyoza.worker.backoff import Backoff
from gyoza.worker.errors import EngineUnavailable

R = TypeVar("R")

logger = logging.getLogger(__name__)


async def through_outages(
    call: Callable[[], Awaitable[R]], who: str, on_outage: Callable[[], None] = lambda: None
) -> R:
    """Return what the call returns, made again and again while the engine does not answer.

    Whoever calls this bounds it.

    Args:
        call: Looks first what a call before it has brought about.
        who: Waits, in the words of the log.
        on_outage: Called whenever the engine does not answer.
    """
    backoff = Backoff()
    while True:
        try:
            return await call()
        except EngineUnavailable as error:
            logger.warning("%s waits for the engine: %s", who, error)
            on_outage()
            await backoff.wait()
