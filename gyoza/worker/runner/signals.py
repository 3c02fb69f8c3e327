"""What signals make the worker do: drain, stop what runs, leave at once."""

import logging
import signal

import trio

from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.leaving import leave_now
from gyoza.worker.runner.worker import Worker

logger = logging.getLogger(__name__)


async def obey_signals(
    worker: Worker, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Drain at the first SIGINT or SIGTERM, stop the runs at the second, leave at the third.

    The same signal sent again before the last one was taken in counts once.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        taken = 0
        async for number in signals:
            taken += 1
            name = signal.Signals(number).name
            if taken == 1:
                logger.warning(
                    "%s: draining. No new runs; %d here may finish, for up to %g s. Another signal "
                    "stops them and gives them back.",
                    name,
                    worker.active.count,
                    worker.settings.drain_timeout_s,
                )
                worker.drain()
            elif taken == 2:
                logger.warning(
                    "%s: stopping the runs here (%d) and giving them back. Another signal ends the "
                    "worker at once; containers keep running.",
                    name,
                    worker.active.count,
                )
                worker.active.trip_all(CancelReason.SHUTDOWN)
            else:
                logger.warning(
                    "%s: ending at once. The worker's next start takes up what runs.", name
                )
                leave_now(128 + number)


def ignore_signals() -> None:
    """Let no signal that comes too late spoil the exit code of a drained worker."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
