"""The outermost layer of the worker process: settings, singletons, systemd, exit code."""

from collections.abc import Callable
from functools import partial

import trio

from gyoza import descriptors
from gyoza.worker.errors import WorkerError, WorkerLacks
from gyoza.worker.lacks import lack_of
from gyoza.worker.runner.signals import obey_signals
from gyoza.worker.runner.supervisor import open_worker, supervise
from gyoza.worker.runner.systemd import Systemd, keep_informed
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import worker_context


def start() -> None:
    """Start the worker heartbeat and execution loop.

    Blocks until interrupted with Ctrl-C or a signal: the first lets running ops finish, the second
    stops them, the third ends the process and leaves them to its next start. Heartbeats, claims and
    runs are tasks of one Trio program.

    Raises:
        WorkerError: If the settings, the engine or the server's answer make work impossible.
    """
    descriptors.raise_limit()
    run(WorkerSettings.from_env())


def run(settings: WorkerSettings, *, on_end: Callable[[], None] = lambda: None) -> int:
    """Run a worker with these settings until it has drained; return the exit code.

    Args:
        settings: See `WorkerSettings`.
        on_end: Called once signals are no longer obeyed.

    Raises:
        WorkerError: As `start`.
    """
    try:
        trio.run(partial(work_until_told, settings, on_end=on_end))
    except BaseExceptionGroup as group:
        raise _single(group) from group
    except (OSError, MemoryError, RuntimeError) as error:
        if (lack := lack_of(error)) is None:
            raise
        raise WorkerLacks(lack) from error
    return 0


async def work_until_told(
    settings: WorkerSettings,
    *,
    on_end: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[Worker] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run this process's worker until signals or its settings have ended it.

    Args:
        settings: See `WorkerSettings`.
        on_end: Called once signals are no longer obeyed.
        task_status: Gets the worker once it is registered and about to claim.
    """
    async with open_worker(settings, context=worker_context) as worker:
        async with trio.open_nursery() as process:
            await process.start(obey_signals, worker)
            if systemd := Systemd.from_env():
                process.start_soon(keep_informed, systemd, worker)
            await supervise(worker, task_status=task_status)
            process.cancel_scope.cancel()
        on_end()


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the group's error for the user if it holds one, else the group itself."""
    known = group.subgroup(WorkerError)
    while isinstance(known, BaseExceptionGroup):
        known = known.exceptions[0]
    return known or group
