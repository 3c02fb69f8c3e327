"""How long the server may be asked to hold an answer back, where something cuts long waits.

A proxy with a short time-out answers 504 in the server's place, or closes the connection, each time
that the server has nothing to tell for longer. The server is well, and asked for less it answers.
"""

from collections.abc import Generator
from contextlib import contextmanager

import httpx
import trio

from gyoza.client.errors import ApiError, ForeignAnswer, ServerUnreachable

LEAST_S = 1.0
"""The shortest wait that is asked for; what is cut sooner is cut for another reason."""

AGAIN_S = 600.0
"""Seconds after the last cut until the usual wait is tried again: it may have been an outage."""

TIME_OUTS = frozenset({408, 502, 504, 524})
"""What proxies say for a server that is silent: Apache says 502, Cloudflare 524."""

_CUT = (httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError)


class LongPoll:
    """The wait of one question that is asked again and again.

    Args:
        most_s: Seconds for which the server is asked to hold the answer back, unless that is cut.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = self._wait_s = most_s
        self._cut_at = 0.0

    @contextmanager
    def asking(self) -> Generator[float]:
        """Give the seconds to ask for; what comes of the question in the block tells the next."""
        asked_at = trio.current_time()
        if asked_at - self._cut_at > AGAIN_S:
            self._wait_s = self._most_s
        try:
            yield self._wait_s
        except (ApiError, ServerUnreachable) as error:
            now = trio.current_time()
            if _is_cut(error) and now - asked_at >= LEAST_S:
                # Half of what was too long, since no proxy is to be met at its limit.
                shorter = min(self._wait_s, now - asked_at) / 2
                self._wait_s = min(self._most_s, max(LEAST_S, shorter))
                self._cut_at = now
            raise


def _is_cut(error: Exception) -> bool:
    """Whether the question has come to something that was then tired of waiting."""
    if isinstance(error, ApiError):
        return isinstance(error, ForeignAnswer) and error.status in TIME_OUTS
    return isinstance(error.__cause__, _CUT)
