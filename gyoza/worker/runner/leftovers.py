"""Clears away what an earlier life of this worker has left: containers and op directories."""

import logging
from pathlib import Path

import trio

from gyoza.worker.containers.labels import ContainerIdentity, of_worker
from gyoza.worker.errors import OpDirNotRemoved
from gyoza.worker.op_io.op_dir import remove_op_dir
from gyoza.worker.runner.run_task import give_back
from gyoza.worker.runner.worker import Worker

logger = logging.getLogger(__name__)


async def clear_leftovers(worker: Worker) -> None:
    """Remove this worker's containers and directories, and give their runs back to the server.

    Called before the first claim, under the lock of the worker's directory, so that whatever is
    found belongs to nobody.

    Raises:
        EngineError: If the engine does not answer.
    """
    engine = worker.tools.engine
    for container in await engine.list(of_worker(worker.settings.worker_id)):
        logger.warning("The container %s of an earlier start is removed.", container.name)
        await engine.remove(container.id)
        if identity := ContainerIdentity.from_labels(container.labels):
            await give_back(worker.heartbeats, identity, "WORKER_RESTARTED")
    await trio.to_thread.run_sync(_clear, worker.settings.work_dir, limiter=worker.tools.files)


def _clear(work_dir: Path) -> None:
    for entry in work_dir.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            try:
                remove_op_dir(entry)
            except OpDirNotRemoved as error:
                logger.warning("%s", error)
