"""Takes up what an earlier life of this worker has left: its runs go on where they were.

The run directories tell what was under way. Recalled runs hold their slots and are in the very
first heartbeat, so that their leases go on; their containers hold their GPUs. Then the server is
asked for each whether it is still this worker's. If so, the same task as for any run does what is
left of it; if not, its container and directory are removed.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gyoza.client import ApiError, ClientError
from gyoza.worker.backoff import Backoff
from gyoza.worker.errors import OpDirNotRemoved, WorkerLacks
from gyoza.worker.lacks import in_thread, lack_of
from gyoza.worker.op_io.op_dir import remove_op_dir
from gyoza.worker.run_record import RunRecord
from gyoza.worker.runner.active_runs import ActiveRun, CancelReason
from gyoza.worker.runner.run_task import identity_of, run_op
from gyoza.worker.runner.state_refresh import is_held
from gyoza.worker.runner.worker import Worker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recalled:
    """A run of an earlier life, with its slot."""

    active: ActiveRun
    record: RunRecord


async def recall_runs(worker: Worker) -> list[Recalled]:
    """Read the run directories and take slots for what they tell of.

    Called before the first heartbeat, under the lock of the worker's directory.

    Raises:
        WorkerLacks: If the worker lacks what it takes to read them.
    """
    work_dir = worker.settings.work_dir
    records = await in_thread(_load, work_dir, limiter=worker.tools.files)
    recalled: list[Recalled] = []
    for record in records:
        recalled.append(Recalled(worker.active.add(record.run), record))
        recalled[-1].active.record = record
    return recalled


def _load(work_dir: Path) -> list[RunRecord]:
    """Return the record of the latest attempt of every run; other directories are removed."""
    latest: dict[str, RunRecord] = {}
    for record in sorted(_records(work_dir), key=lambda record: record.run.current_attempt):
        if earlier := latest.get(record.run.id):  # the sweep removes a container
            earlier.close()
            _clear(earlier.directory)
        latest[record.run.id] = record
    return list(latest.values())


def _records(work_dir: Path) -> Iterator[RunRecord]:
    for directory in work_dir.iterdir():
        if directory.is_symlink() or not directory.is_dir():
            continue
        try:
            yield RunRecord.load(directory)
        except (ValueError, TypeError, KeyError, OSError) as error:
            if lack := lack_of(error):  # it may tell of one all the same
                raise WorkerLacks(lack) from error
            logger.warning("%s tells of no run (%s) and is removed.", directory, error)
            _clear(directory)


def _clear(directory: Path) -> None:
    try:
        remove_op_dir(directory)
    except OpDirNotRemoved as error:
        logger.warning("%s", error)


async def take_up(recalled: Recalled, worker: Worker) -> None:
    """Do what is left of a run, or remove it; returns when its slot is free."""
    active, record = recalled.active, recalled.record
    if record.end or await _is_ours(active, worker):
        logger.info("Run %s is taken up where it was.", active.run.id)
    else:
        active.trip(CancelReason.LEASE_LOST)
    await run_op(active, worker, record)


async def _is_ours(active: ActiveRun, worker: Worker) -> bool:
    """Ask the server until it answers, or the run is to be stopped in any case."""
    backoff = Backoff()
    while not active.tripped.is_set():
        try:
            found = await worker.client.get_run(active.run.id)
            return is_held(found, identity_of(active.run, worker))
        except (ApiError, ClientError) as error:
            if isinstance(error, ApiError) and error.says_unknown:
                return False
            logger.warning("Run %s waits to be taken up: %s", active.run.id, error)
        await backoff.wait(active.tripped)
    return True
