"""The service that deletes runs once they have been over for as long as they are kept."""

import logging
import math
import time
from collections.abc import Callable

from gyoza.server.repeat import repeat
from gyoza.server.store.database import Database
from gyoza.server.store.retention import prune

LONGEST_S = 3600.0
"""Seconds between two looks: the clock may be set back meanwhile."""

LEAP_S, SETTLE_S = 3600.0, 24 * 3600.0
"""A clock that leaps so far may be wrong, and a person has so long to see it: what it makes old
would be deleted for good."""

_log = logging.getLogger(__name__)


async def run_retention(
    database: Database,
    clock: Callable[[], float],
    keep_s: float,
    steady: Callable[[], float] = time.monotonic,
) -> None:
    """Delete what is due, and sleep until more is; nothing for a day after the clock has leapt.

    Args:
        database: Where the runs are.
        clock: Returns seconds since 1970.
        keep_s: Seconds that a run is kept after its end.
        steady: Returns seconds that nobody sets.
    """
    apart, settled_at = clock() - steady(), -math.inf

    async def delete_some() -> float:
        nonlocal apart, settled_at
        leap_s = clock() - steady() - apart
        if abs(leap_s) > LEAP_S:
            apart, settled_at = apart + leap_s, steady() + SETTLE_S
            _log.warning("The clock has leapt by %.0f s; no old run is deleted for a day.", leap_s)
        if steady() < settled_at:
            return LONGEST_S
        due = await database.write(lambda tx: prune(tx, keep_s))
        return min(max(0.0, due - clock()), LONGEST_S)

    await repeat("Old runs cannot be deleted", delete_some)
