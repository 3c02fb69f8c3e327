"""The service that takes runs from lost workers and ends back-offs, when each is due."""

import logging
from collections.abc import Callable

import trio
from sqlalchemy.exc import OperationalError

from gyoza.server.store.claims import restart_leases, sweep
from gyoza.server.store.database import Database
from gyoza.server.wakeups import DUE, Wakeups

RETRY_S = 1.0  # after the database did not take a sweep: locked by a backup, or no space left

_log = logging.getLogger(__name__)


async def run_leases(
    database: Database,
    wakeups: Wakeups,
    clock: Callable[[], float],
    lease_s: float,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Start every lease anew, then sweep whenever something is due or may be due sooner."""
    await database.write(lambda tx: restart_leases(tx, lease_s))
    task_status.started()
    while True:
        with wakeups.watch(DUE) as sooner:
            try:
                due = await database.write(sweep)
            except OperationalError as error:
                _log.warning("Leases cannot be looked at, trying again: %s", error.orig)
                due = clock() + RETRY_S
            # A lease that begins meanwhile ends after the next look, however late that is.
            wait_s = lease_s if due is None else min(lease_s, max(0.0, due - clock()))
            with trio.move_on_after(wait_s):
                await sooner.wait()
