"""When a call is tried again: one table, one row per kind of call.

A call that may be repeated without harm is retried on any transport error, on statuses that say
"later", and on what is no gyoza server's answer: then something on the way has answered in its
place. One that may not is retried only if the connection was never made.
"""

import random
import sys
from dataclasses import dataclass

import httpx

from gyoza.client.errors import ApiError, Failure, ForeignAnswer, UnexpectedAnswer

LATER = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of a server or proxy that may answer otherwise in a moment."""


@dataclass(frozen=True)
class RetryRule:
    """One row: how long a call waits between tries and what it retries on.

    Attributes:
        tries: Tries in all.
        first_s: Upper bound of the first wait in seconds; doubles with each further one.
        cap_s: Upper bound of any wait in seconds.
        errors: Exception types that are retried.
        statuses: HTTP statuses of a gyoza server that are retried.
        foreign: Whether answers of others are retried.
    """

    tries: int = 1
    first_s: float = 0.2
    cap_s: float = 15.0
    errors: tuple[type[httpx.TransportError], ...] = (httpx.TransportError,)
    statuses: frozenset[int] = LATER
    foreign: bool = True

    def delay_s(self, tried: int, failure: Failure) -> float | None:
        """Return the seconds to wait before the next try, or None if there is none.

        Waits are drawn between half the bound and the bound, so that a fleet does not return as
        one; a `Retry-After` in seconds is waited at least, up to `cap_s`.

        Args:
            tried: Tries made so far, from 1.
            failure: What became of the last one.
        """
        if tried >= self.tries or not self._may_pass(failure):
            return None
        wait = self.pause_s(tried)
        asked = _asked(failure)
        return max(wait, min(float(asked), self.cap_s)) if asked.isdecimal() else wait

    def pause_s(self, tried: int) -> float:
        """Return the seconds to wait after so many tries, whatever became of them."""
        bound = min(self.first_s * 2.0 ** min(tried - 1, 30), self.cap_s)
        return bound * random.uniform(0.5, 1.0)

    def _may_pass(self, failure: Failure) -> bool:
        if isinstance(failure, httpx.TransportError):
            return isinstance(failure, self.errors)
        if isinstance(failure, ForeignAnswer | UnexpectedAnswer):
            return self.foreign
        return failure.status in self.statuses


def _asked(failure: Failure) -> str:
    """Return the seconds that an answer asks to wait, as it tells them."""
    return failure.response.headers.get("Retry-After", "") if isinstance(failure, ApiError) else ""


NEVER = RetryRule()
"""Heartbeats, claims, changes: the loop around them is the retry."""

READ = RetryRule(tries=4)
"""Reads and idempotent writes of people: at most 0.2 + 0.4 + 0.8 = 1.4 s of waiting."""

CONNECT = RetryRule(
    tries=4,
    errors=(httpx.ConnectError, httpx.ConnectTimeout),
    statuses=frozenset(),
    foreign=False,
)
"""Writes that would count twice: only while the request has certainly not arrived."""

REPORT = RetryRule(tries=48, statuses=LATER | {401})
"""A worker's reports, idempotent by `seq` or offset: 12 s while doubling, then about 10 minutes.

A refused key is retried as well: while keys are changed no result may be lost.
"""

FOLLOW = RetryRule(tries=sys.maxsize, cap_s=5.0)
"""The stream of a log: for as long as its reader's patience lasts."""
