"""Heartbeats: tell the server who is here and what runs, and hear what became of the runs."""

import logging
import math
from typing import Any

import trio

import gyoza
from gyoza.client import ApiError, ClientError, ForeignAnswer, ServerUnreachable
from gyoza.worker.errors import SettingsError, WorkerTaken
from gyoza.worker.lacks import in_thread
from gyoza.worker.runner.leaving import TAKEN
from gyoza.worker.runner.worker import BEATS_A_LEASE, Worker

LIMIT_S, LEAST_LIMIT_S = 15.0, 1.0
"""Seconds that a heartbeat may take: within a short lease less, but never less than the second."""

logger = logging.getLogger(__name__)


async def heartbeat_loop(
    worker: Worker, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Send heartbeats until cancelled; started once the server has taken the first.

    To a server that is away the next goes when it is due, which is said once, and once more when
    the server is back.

    Raises:
        SettingsError: If the server refuses the key of the very first heartbeat.
        WorkerTaken: If it says at that one that another process works under this id.
    """
    registered, reachable = False, True
    while True:
        began_at = trio.current_time()
        worker.beat_now = trio.Event()
        try:
            async with worker.beating:
                await beat(worker)
        except (ApiError, ClientError) as error:
            if _is_taken(error):
                if not registered and worker.instance.before:
                    # Of several starts before this one only the server knows which it has met.
                    del worker.instance.before[0]
                    continue
                _give_way(worker, str(error), registered=registered)
            if not registered and _refuses(error, 401, 403):
                raise SettingsError(_why_refused(error)) from error
            if reachable:
                logger.warning("No heartbeat reaches the server, retrying: %s", error)
            reachable = False
        else:
            if not registered:
                registered = True
                await in_thread(worker.instance.note_met, limiter=worker.tools.files)
                _warn_of_late_fence(worker)
                task_status.started()
            elif not reachable:
                logger.info("Heartbeats reach the server again.")
            reachable = True
        if worker.draining.is_set() and not registered:
            registered = True
            task_status.started()  # it ends without ever having met its server
        with trio.move_on_at(began_at + worker.heartbeat_s):
            await worker.beat_now.wait()


async def beat_at_changes(worker: Worker) -> None:
    """Send a heartbeat as soon as readiness changes: the server gives runs by what it was told."""
    while True:
        await worker.readiness.changed.wait()
        worker.beat_now.set()


async def beat(worker: Worker, *, leaving: bool = False) -> None:
    """Send one heartbeat and take in its answer.

    Args:
        worker: Whose it is.
        leaving: Whether it is the last one of this process.

    Raises:
        ApiError: If the server refuses it.
        ClientError: If it does not answer in time.
    """
    payload = worker.context.to_heartbeat_payload()
    for op in payload["running_ops"]:
        op["inputs"] = {}  # the server has them; megabytes of them would make beats late
    sent_at, limit_s = trio.current_time(), _limit_s(worker)
    answer: dict[str, Any] | None = None
    with trio.move_on_after(limit_s):
        answer = await worker.heartbeats.heartbeat(
            **payload,
            draining=worker.draining.is_set(),
            engine="ok" if worker.engine_watch.well else "unavailable",
            disk="low" if worker.disk_watch.low else "ok",
            max_concurrency=worker.active.slots,
            marks_log_end=True,
            version=gyoza.__version__,
            instance=worker.instance.id,
            previous_instance=next(iter(worker.instance.before), None),
            leaving=leaving,
        )
    if answer is None:
        raise ServerUnreachable(f"The server has not answered within {limit_s:g} s.")
    worker.contact.require(answer, "lease_s")
    worker.contact.note(sent_at, answer.get("lease_s"))
    _tell_drain(worker, drained=answer.get("drain") is True)
    worker.active.observe(answer.get("states") or {})


def _tell_drain(worker: Worker, *, drained: bool) -> None:
    """Log that a person has drained this worker at the server, or ended that."""
    if drained == worker.contact.drained:
        return
    worker.contact.drained = drained
    worker_id = worker.settings.worker_id
    if drained:
        logger.warning(
            "Worker %s is drained at the server and gets no runs; `gyoza workers resume %s` ends "
            "that.",
            worker_id,
            worker_id,
        )
    else:
        logger.info("Worker %s gets runs again.", worker_id)


def _limit_s(worker: Worker) -> float:
    """Return how long a heartbeat may take, so that others can go before lease or fence."""
    fence_s = worker.settings.fence_after_s or math.inf
    shortest_s = min(worker.contact.lease_s, fence_s) / BEATS_A_LEASE
    return max(LEAST_LIMIT_S, min(LIMIT_S, shortest_s))


def _is_taken(error: ApiError | ClientError) -> bool:
    """Whether the server says that another process works under this worker's id."""
    return _refuses(error, 409) and "another process" in str(error).lower()


def _give_way(worker: Worker, sentence: str, *, registered: bool) -> None:
    """Leave the id to the other process, and with it what runs.

    A worker that was there first has not been heard of for a lease, and its runs may be executed
    by others by now; but some of them may be the other's, and so it touches none.

    Raises:
        WorkerTaken: At the start, when nothing has been touched yet.
    """
    if not registered:
        raise WorkerTaken(sentence)
    logger.error("%s This one ends at once; what runs here is left as it is.", sentence)
    worker.leave_now(TAKEN)


def _refuses(error: ApiError | ClientError, *statuses: int) -> bool:
    """Whether a gyoza server, and not something on the way to it, answers with such a status."""
    if not isinstance(error, ApiError) or isinstance(error, ForeignAnswer):
        return False
    return error.status in statuses


def _why_refused(error: ApiError | ClientError) -> str:
    """Return the sentence for a key that is refused, or does not allow this worker as it is."""
    if _refuses(error, 403):
        return f"The server refuses this worker: {error}"
    return (
        f"The server refuses this worker ({error}); set GYOZA_API_KEY or GYOZA_API_KEY_FILE to one "
        "of its keys."
    )


def _warn_of_late_fence(worker: Worker) -> None:
    fence_s, lease_s = worker.settings.fence_after_s, worker.contact.lease_s
    if fence_s is not None and worker.contact.names_lease and fence_s >= lease_s:
        logger.warning(
            "The fence comes after %g s, but the server gives runs to others after %g s: set "
            "GYOZA_FENCE_AFTER to less than that, lest a run is executed in two places.",
            fence_s,
            lease_s,
        )
