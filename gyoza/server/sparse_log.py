"""Log lines about what anybody can bring about as often as he likes: few of them are written."""

import logging
from typing import Any

import trio

EVERY_S = 10.0


class SparseLog:
    """Writes at most one line of each kind in a while, and says how many it left out.

    Args:
        logger: Where lines go.
        every_s: Seconds between two lines of the same kind.
    """

    def __init__(self, logger: logging.Logger, every_s: float = EVERY_S) -> None:
        self._logger = logger
        self._every_s = every_s
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, text: str, *values: object) -> None:
        """Log a warning; `text` without its values is its kind."""
        self._say(logging.WARNING, text, *values)

    def error(self, text: str, *values: object, exc_info: BaseException | None = None) -> None:
        """Log an error; `text` without its values is its kind."""
        self._say(logging.ERROR, text, *values, exc_info=exc_info)

    def _say(self, level: int, text: str, *values: object, **more: Any) -> None:
        now = trio.current_time()
        if now < self._next.get(text, now):
            self._left_out[text] = self._left_out.get(text, 0) + 1
            return
        self._next[text] = now + self._every_s
        if left_out := self._left_out.pop(text, 0):
            text, values = (
                text + " (And %d times more since the last such line.)",
                (*values, left_out),
            )
        self._logger.log(level, text, *values, **more)
