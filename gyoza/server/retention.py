"""The service that deletes runs once they have been over for as long as they are kept."""

import logging
from collections.abc import Callable

import trio
from sqlalchemy.exc import OperationalError

from gyoza.server.leases import RETRY_S
from gyoza.server.store.database import Database
from gyoza.server.store.retention import prune

_log = logging.getLogger(__name__)


async def run_retention(
    database: Database,
    clock: Callable[[], float],
    keep_s: float,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Delete what is due, some of it before this says that it has started; sleep until more is."""
    due = await _prune(database, clock, keep_s)
    task_status.started()
    while True:
        await trio.sleep(max(0.0, due - clock()))
        due = await _prune(database, clock, keep_s)


async def _prune(database: Database, clock: Callable[[], float], keep_s: float) -> float:
    try:
        return await database.write(lambda tx: prune(tx, keep_s))
    except OperationalError as error:
        _log.warning("Old runs cannot be deleted, trying again: %s", error.orig)
        return clock() + RETRY_S
