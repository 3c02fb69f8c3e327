"""The service that deletes runs once they have been over for as long as they are kept."""

from collections.abc import Callable

from gyoza.server.repeat import repeat
from gyoza.server.store.database import Database
from gyoza.server.store.retention import prune

LONGEST_S = 3600.0
"""Seconds between two looks: the clock may be set back meanwhile."""


async def run_retention(database: Database, clock: Callable[[], float], keep_s: float) -> None:
    """Delete what is due, and sleep until more is."""

    async def delete_some() -> float:
        due = await database.write(lambda tx: prune(tx, keep_s))
        return min(max(0.0, due - clock()), LONGEST_S)

    await repeat("Old runs cannot be deleted", delete_some)
