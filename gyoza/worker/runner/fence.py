"""The fence: stops the runs when the server has not heard of this worker for too long.

The server gives the runs of a silent worker to others when their lease ends. A worker that stops
its containers before that makes sure that no run is executed in two places.
"""

import logging
from collections.abc import Mapping
from functools import partial

import trio

from gyoza.worker.containers.labels import ContainerIdentity, of_worker
from gyoza.worker.containers.stop import stop_container
from gyoza.worker.errors import EngineError
from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.readiness import Obstacle
from gyoza.worker.runner.worker import Worker
from gyoza.worker.server_contact import ServerContact

ENGINE_S = 30.0
"""Seconds the engine may take to stop a container, besides the grace period."""

logger = logging.getLogger(__name__)


async def fence(worker: Worker) -> None:
    """Fence this worker in whenever the server is away for too long, until cancelled."""
    limit_s = worker.settings.fence_after_s
    while limit_s is not None:
        await _silence(worker.contact, limit_s)
        answered = worker.contact.answered
        logger.error(
            "No heartbeat has reached the server for %g s: all runs here are stopped, and nothing "
            "is claimed until it answers.",
            limit_s,
        )
        worker.readiness.block(Obstacle.FENCE)
        if worker.ready.is_set():
            worker.active.trip_all(CancelReason.FENCED)
        else:
            await _stop_unattended(worker)
        await _either(answered, worker.draining)
        worker.readiness.unblock(Obstacle.FENCE)
        if not answered.is_set():
            return  # it leaves, and nothing runs here any more
        logger.info("Heartbeats reach the server: runs may be claimed again.")


async def _silence(contact: ServerContact, limit_s: float) -> None:
    """Wait until the server has not been reached for that long."""
    while (left_s := contact.reached_at + limit_s - trio.current_time()) > 0:
        with trio.move_on_after(left_s):
            await contact.answered.wait()


async def _either(*events: trio.Event) -> None:
    async def wait(event: trio.Event) -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(wait, event)


async def _stop_unattended(worker: Worker) -> None:
    """Stop the containers of an earlier start, which no task attends to before the server does."""
    try:
        containers = await worker.tools.engine.list(of_worker(worker.settings.worker_id))
    except EngineError as error:
        logger.error("What runs here cannot be stopped: %s", error)
        return
    async with trio.open_nursery() as nursery:
        for container in containers:
            if container.state in ("running", "paused"):
                nursery.start_soon(_stop, worker, container.id, container.labels)


async def _stop(worker: Worker, container_id: str, labels: Mapping[str, str]) -> None:
    grace_s = worker.settings.grace_s
    identity = ContainerIdentity.from_labels(labels)
    record = identity and worker.active.record_of(identity.run_id, identity.attempt)
    if record:  # whatever it exits with, it was not of itself
        note = partial(record.note_stopping, timed_out=False)
        await trio.to_thread.run_sync(note, limiter=worker.tools.files)
    try:
        with trio.move_on_after(grace_s + ENGINE_S):
            await stop_container(worker.tools.engine, container_id, grace_s)
    except EngineError as error:
        logger.error("The container %s cannot be stopped: %s", container_id[:12], error)
