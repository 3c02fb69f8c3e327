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
                logger.warning("%s: no new runs; those here may finish. Again stops them.", name)
                worker.drain()
            elif taken == 2:
                logger.warning(
                    "%s: the runs here are stopped and given back. Again leaves them.", name
                )
                worker.active.trip_all(CancelReason.SHUTDOWN)
            else:
                logger.warning("%s: out now; what runs is left to the worker's next start.", name)
                leave_now(128 + number)


def ignore_signals() -> None:
    """Let no signal that comes too late spoil the exit code of a drained worker."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
