"""How long to wait: longer after every failure in a row, and not all for the same time."""

import random

import trio

FIRST_S = 0.5
CAP_S = 30.0

LONG_POLL_S = 25.0  # less than the half minute after which some proxies lose their patience
"""Seconds for which the server may hold a question open, at most; spread, too."""


def spread(seconds: float) -> float:
    """Return up to half less: workers that began together are not to ask together for ever."""
    return seconds * random.uniform(0.5, 1.0)


class Backoff:
    """Waits of 0.5, 1, 2 … 30 s, each drawn between half of it and all of it.

    Attributes:
        failing: There was a failure since the last success.
    """

    def __init__(self) -> None:
        self._bound = FIRST_S
        self.failing = False

    async def wait(self, unless: trio.Event | None = None) -> None:
        """Wait for the next period, or until `unless` is set."""
        self.failing = True
        with trio.move_on_after(spread(self._bound)):
            await (trio.Event() if unless is None else unless).wait()
        self._bound = min(self._bound * 2, CAP_S)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._bound = FIRST_S
        self.failing = False
