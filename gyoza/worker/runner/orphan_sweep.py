"""Removes containers that nobody attends to any more: this worker's own and those of dead workers.

Own ones are left if their removal failed or a start broke off. Others are left by a worker of the
same server that never came back; they are touched only if the server says that nobody wants them.
"""

import logging
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import trio

from gyoza.client import ApiError, ClientError
from gyoza.worker.containers.engine import ContainerInfo
from gyoza.worker.containers.labels import SERVER, WORKER_ID, ContainerIdentity, of_worker
from gyoza.worker.errors import EngineError, EngineUnavailable
from gyoza.worker.run_record import run_dir
from gyoza.worker.runner.run_task import CLEANUP_S, remove_run_dir
from gyoza.worker.runner.state_refresh import is_held
from gyoza.worker.runner.worker import Worker

FIRST_S = 5.0
"""Seconds until the first pass."""

PERIOD_S = 60.0
"""Seconds between two passes."""

GRACE_S = 60.0
"""Seconds besides the lease that the worker of a container has to come back."""

logger = logging.getLogger(__name__)


async def sweep_orphans(worker: Worker) -> None:
    """Sweep until cancelled; started after the runs of an earlier start have been taken up."""
    sweep = OrphanSweep(worker)
    await trio.sleep(FIRST_S)
    while True:
        await sweep.look()
        await trio.sleep(PERIOD_S)


class OrphanSweep:
    """The sweep of one worker.

    Args:
        worker: Whose engine is swept.
        grace_s: See `GRACE_S`.
    """

    def __init__(self, worker: Worker, grace_s: float = GRACE_S) -> None:
        self._worker = worker
        self._grace_s = grace_s
        self._unattended: set[str] = set()

    async def look(self) -> None:
        """Make one pass; whatever cannot be told or removed now waits for the next one."""
        try:
            found = await self._worker.tools.engine.list(of_worker(""))
            await self._sweep_own([c for c in found if self._is_own(c)])
            await self._sweep_others([c for c in found if not self._is_own(c)])
        except EngineUnavailable as error:
            self._worker.engine_watch.doubt()
            logger.info("Containers cannot be swept now: %s", error)

    async def _sweep_own(self, containers: list[ContainerInfo]) -> None:
        unattended = {c.id: c for c in containers if not self._is_attended(c)}
        # Not by what was seen once: a run may just be coming or going.
        for container_id in unattended.keys() & self._unattended:
            await self._remove(unattended[container_id])
            await self._remove_run_dir(unattended[container_id])
        self._unattended = set(unattended)

    async def _remove_run_dir(self, container: ContainerInfo) -> None:
        if identity := ContainerIdentity.from_labels(container.labels):
            work_dir = self._worker.settings.work_dir
            left = run_dir(work_dir, identity.run_id, identity.attempt)
            with trio.move_on_after(CLEANUP_S):
                await remove_run_dir(left, self._worker.tools.removals)

    async def _sweep_others(self, containers: list[ContainerInfo]) -> None:
        for container in containers:
            try:
                if await self._is_abandoned(container):
                    await self._remove(container)
            except (ApiError, ClientError) as error:
                logger.info("Whether %s is wanted cannot be told: %s", container.name, error)

    def _is_own(self, container: ContainerInfo) -> bool:
        mine = (self._worker.settings.worker_id, self._worker.server)
        return mine == (container.labels[WORKER_ID], container.labels.get(SERVER, mine[1]))

    def _is_attended(self, container: ContainerInfo) -> bool:
        identity = ContainerIdentity.from_labels(container.labels)
        return identity is not None and self._worker.active.has_attempt(
            identity.run_id, identity.attempt
        )

    async def _is_abandoned(self, container: ContainerInfo) -> bool:
        """Return whether another worker's container is wanted neither by it nor by our server.

        Raises:
            ApiError: If the server does not say; or ClientError.
        """
        identity = ContainerIdentity.from_labels(container.labels)
        if identity is None or identity.server != self._worker.server:
            return False
        # The clock of an engine elsewhere may differ. A container that seems old too early does no
        # harm: the server is asked in any case.
        age_s = (datetime.now(UTC) - container.created_at).total_seconds()
        if age_s < self._worker.contact.lease_s + self._grace_s:
            return False
        run = await _known(self._worker.client.get_run(identity.run_id))
        if run and is_held(run, identity):
            return False
        # A worker that is there ends its containers by itself.
        worker = await _known(self._worker.client.get_worker(identity.worker_id))
        return worker is None or worker.get("state") == "lost"

    async def _remove(self, container: ContainerInfo) -> None:
        logger.warning(
            "The container %s of worker %s is removed: nobody attends to it any more.",
            container.name,
            container.labels[WORKER_ID],
        )
        try:
            await self._worker.tools.engine.remove(container.id)
        except EngineUnavailable:
            raise
        except EngineError as error:
            logger.warning("The container %s stays: %s", container.name, error)


async def _known(question: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the server's answer, or None if it knows no such thing."""
    try:
        return await question
    except ApiError as error:
        if error.says_unknown:
            return None
        raise
