"""Drains: how long runs may take after a signal, and when a worker leaves by itself."""

import logging

import trio

from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.worker import Worker

logger = logging.getLogger(__name__)


async def enforce_drain_timeout(worker: Worker) -> None:
    """Stop the runs that have not finished in time after the worker was told to leave."""
    await worker.leaving.wait()
    await trio.sleep(worker.settings.drain_timeout_s)
    worker.active.trip_all(CancelReason.SHUTDOWN)


async def leave_when_idle(worker: Worker) -> None:
    """End the claims once the worker has had nothing to do for its `idle_exit_s`."""
    idle_s = worker.settings.idle_exit_s
    if idle_s is None:
        return
    while not worker.draining.is_set():
        claimed = worker.claimed
        for run_id in worker.active.ids:
            await worker.active.wait_until_gone(run_id)
        if worker.active.ids:
            continue
        with trio.move_on_after(idle_s) as idle:
            await claimed.wait()
        if idle.cancelled_caught:
            logger.info("Nothing to do for %g s: the worker leaves.", idle_s)
            worker.stop_claiming()
