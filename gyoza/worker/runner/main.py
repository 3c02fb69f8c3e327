"""The outermost layer of the worker process: settings, singletons, signals, exit code."""

import logging
import signal

import trio

from gyoza.worker.errors import WorkerError
from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.supervisor import open_worker, supervise
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import worker_context

logger = logging.getLogger(__name__)


def start() -> None:
    """Start the worker heartbeat and execution loop.

    Blocks until interrupted with Ctrl-C or a signal: the first lets running ops finish, the second
    stops them. Heartbeats, claims and runs are tasks of one Trio program.

    Raises:
        WorkerError: If the settings, the engine or the server's answer make work impossible.
    """
    run(WorkerSettings.from_env())


def run(settings: WorkerSettings) -> int:
    """Run a worker with these settings until a signal has ended it; return the exit code.

    Raises:
        WorkerError: As `start`.
    """
    try:
        trio.run(_worker_with_signals, settings)
    except BaseExceptionGroup as group:
        raise _single(group) from group
    return 0


async def _worker_with_signals(settings: WorkerSettings) -> None:
    async with (
        open_worker(settings, context=worker_context) as worker,
        trio.open_nursery() as process,
    ):
        await process.start(obey_signals, worker)
        await supervise(worker)
        process.cancel_scope.cancel()


async def obey_signals(
    worker: Worker, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Drain at the first SIGINT or SIGTERM, stop the runs at every further one."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if not worker.draining.is_set():
                logger.warning("%s: no new runs; those here may finish. Again stops them.", name)
                worker.drain()
            else:
                logger.warning("%s: the runs here are stopped and given back.", name)
                worker.active.trip_all(CancelReason.SHUTDOWN)


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the group's error for the user if it holds one, else the group itself."""
    known = group.subgroup(WorkerError)
    while isinstance(known, BaseExceptionGroup):
        known = known.exceptions[0]
    return known or group
