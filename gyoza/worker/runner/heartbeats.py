"""Heartbeats: tell the server who is here and what runs, and hear what became of the runs."""

import logging
from typing import Any

import trio

import gyoza
from gyoza.client import ApiError, ClientError
from gyoza.worker.errors import SettingsError
from gyoza.worker.runner.worker import Worker

logger = logging.getLogger(__name__)


async def heartbeat_loop(
    worker: Worker, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Send heartbeats until cancelled; started once the server has taken the first.

    A server that is away is tried again at every beat, said once and once more when it is back.

    Raises:
        SettingsError: If the server refuses the key of the very first heartbeat.
    """
    registered, reachable = False, True
    while True:
        worker.beat_now = trio.Event()
        try:
            await beat(worker)
        except (ApiError, ClientError) as error:
            if not registered and isinstance(error, ApiError) and error.status in (401, 403):
                raise SettingsError(
                    f"The server refuses this worker ({error}); set GYOZA_API_KEY or "
                    "GYOZA_API_KEY_FILE to the server's key."
                ) from error
            if reachable:
                logger.warning("No heartbeat reaches the server: %s It is tried on.", error)
            reachable = False
        else:
            if not registered:
                registered = True
                task_status.started()
            elif not reachable:
                logger.info("Heartbeats reach the server again.")
            reachable = True
        if worker.draining.is_set() and not registered:
            registered = True
            task_status.started()  # it ends without ever having met its server
        with trio.move_on_after(worker.settings.heartbeat_s):
            await worker.beat_now.wait()


async def beat_at_changes(worker: Worker) -> None:
    """Send a heartbeat as soon as readiness changes: the server gives runs by what it was told."""
    while True:
        await worker.readiness.changed.wait()
        worker.beat_now.set()


async def beat(worker: Worker) -> None:
    """Send one heartbeat and take in its answer."""
    payload = worker.context.to_heartbeat_payload()
    for op in payload["running_ops"]:
        op["inputs"] = {}  # the server has them; megabytes of them would make beats late
    sent_at = trio.current_time()
    answer: dict[str, Any] = await worker.heartbeats.heartbeat(
        **payload,
        draining=worker.draining.is_set(),
        engine="ok" if worker.engine_watch.up else "unavailable",
        disk="low" if worker.disk_watch.low else "ok",
        max_concurrency=worker.settings.max_concurrency,
        version=gyoza.__version__,
    )
    worker.contact.note(sent_at, answer.get("lease_s"))
    worker.active.observe(answer.get("states") or {})
