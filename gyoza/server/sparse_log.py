"""Log lines about what anybody can bring about as often as he likes: few of them are written."""

import logging
import math
from collections import Counter
from typing import Any

import trio

EVERY_S = 10.0


class SparseLog:
    """Writes few lines of each kind in a while, and says how many it left out.

    Args:
        logger: Where lines go.
        every_s: How long a while is, in seconds.
        lines: Lines of a kind in a while.
    """

    def __init__(self, logger: logging.Logger, every_s: float = EVERY_S, lines: int = 1) -> None:
        self._logger = logger
        self._every_s = every_s
        self._lines = lines
        self._ends: dict[str, float] = {}
        self._seen: Counter[str] = Counter()

    def warning(self, text: str, *values: object) -> None:
        """Log a warning; `text` without its values is its kind."""
        self._say(logging.WARNING, text, *values)

    def error(self, text: str, *values: object, exc_info: BaseException | None = None) -> None:
        """Log an error; `text` without its values is its kind."""
        self._say(logging.ERROR, text, *values, exc_info=exc_info)

    def _say(self, level: int, text: str, *values: object, **more: Any) -> None:
        now, kind = trio.current_time(), text
        if now >= self._ends.get(kind, -math.inf):
            self._ends[kind] = now + self._every_s
            if (left_out := self._seen.pop(kind, 0) - self._lines) > 0:
                text += " (And %d times more since the last such line.)"
                values = (*values, left_out)
        self._seen[kind] += 1
        if self._seen[kind] <= self._lines:
            self._logger.log(level, text, *values, **more)
