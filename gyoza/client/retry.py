"""When a call is tried again: one table, one row per kind of call.

A call that may be repeated without harm is retried on any transport error and on statuses that say
"later"; one that may not is retried only if the connection was never made.
"""

import random
from dataclasses import dataclass

import httpx

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
        statuses: HTTP statuses that are retried.
    """

    tries: int = 1
    first_s: float = 0.2
    cap_s: float = 15.0
    errors: tuple[type[httpx.TransportError], ...] = (httpx.TransportError,)
    statuses: frozenset[int] = LATER

    def delay_s(self, tried: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return the seconds to wait before the next try, or None if there is none.

        Waits are drawn between half the bound and the bound, so that a fleet does not return as
        one; a `Retry-After` in seconds is waited at least, up to `cap_s`.

        Args:
            tried: Tries made so far, from 1.
            outcome: What the last one ended with.
        """
        if tried >= self.tries:
            return None
        bound = min(self.first_s * 2.0 ** min(tried - 1, 30), self.cap_s)
        wait = bound * random.uniform(0.5, 1.0)
        if not isinstance(outcome, httpx.Response):
            return wait if isinstance(outcome, self.errors) else None
        if outcome.status_code not in self.statuses:
            return None
        asked = outcome.headers.get("Retry-After", "")
        return max(wait, min(float(asked), self.cap_s)) if asked.isdecimal() else wait


NEVER = RetryRule()
"""Heartbeats, claims, changes: the loop around them is the retry."""

READ = RetryRule(tries=4)
"""Reads and idempotent writes of people: at most 0.2 + 0.4 + 0.8 = 1.4 s of waiting."""

CONNECT = RetryRule(
    tries=4, errors=(httpx.ConnectError, httpx.ConnectTimeout), statuses=frozenset()
)
"""Writes that would count twice: only while the request has certainly not arrived."""

REPORT = RetryRule(tries=48, statuses=LATER | {401})
"""A worker's reports, idempotent by `seq` or offset: 12 s while doubling, then about 10 minutes.

A refused key is retried as well: while keys are changed no result may be lost.
"""
