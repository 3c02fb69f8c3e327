"""Claims runs as long as there are free slots, and starts a task for each."""

import logging
from typing import Any

import trio

from gyoza.client import ApiError, ClientError
from gyoza.models import OpRun, check_id
from gyoza.worker.backoff import Backoff
from gyoza.worker.runner.active_runs import CancelReason
from gyoza.worker.runner.run_task import give_back, identity_of, run_op
from gyoza.worker.runner.worker import Worker

WAIT_S = 30.0
"""Seconds the server may hold a claim open until there is a run."""

MIN_PERIOD_S = 1.0
"""Least seconds between empty claims, for a server that answers them at once."""

DRAIN_S = 5.0
"""Seconds in which the claim in flight is answered after a drain has begun."""

logger = logging.getLogger(__name__)


async def claim_loop(worker: Worker, runs: trio.Nursery) -> None:
    """Claim and start runs until the worker drains; the claim in flight is finished first."""
    with trio.CancelScope() as claiming:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_after_drain, worker, claiming)
            backoff = Backoff()
            while not worker.draining.is_set():
                await worker.active.wait_for_slot()
                await worker.engine_watch.wait_until_up()
                await _claim_once(worker, runs, backoff)
            nursery.cancel_scope.cancel()


async def _end_after_drain(worker: Worker, claiming: trio.CancelScope) -> None:
    await worker.draining.wait()
    claiming.deadline = trio.current_time() + DRAIN_S


async def _claim_once(worker: Worker, runs: trio.Nursery, backoff: Backoff) -> None:
    asked_at = trio.current_time()
    try:
        claimed = await worker.client.claim(
            worker.settings.worker_id,
            max_runs=worker.active.free_slots,
            wait_s=WAIT_S,
            holding=worker.active.ids,
        )
    except (ApiError, ClientError) as error:
        logger.warning("No runs can be claimed: %s", error)
        await backoff.wait(worker.draining)
        return
    backoff.reset()
    for data in claimed:
        if run := _read(data):
            await _start(worker, runs, run)
    if not claimed:
        with trio.move_on_at(asked_at + MIN_PERIOD_S):
            await worker.draining.wait()


def _read(data: dict[str, Any]) -> OpRun | None:
    """Return the run, or None if the server's data is none that could be executed."""
    try:
        run = OpRun.from_dict(data)
        check_id(run.id, "run id")
    except (TypeError, ValueError, AttributeError) as error:
        logger.error("The server sent a run that cannot be read: %s", error)
        return None
    return run


async def _start(worker: Worker, runs: trio.Nursery, run: OpRun) -> None:
    if worker.active.has(run):  # claimed twice, since the first answer seemed lost
        return
    if worker.draining.is_set():
        await give_back(worker.client, identity_of(run, worker), CancelReason.SHUTDOWN)
        return
    await worker.active.wait_until_gone(run.id)  # an earlier attempt may still be cleaning up
    logger.info("Run %s: attempt %d of %s.", run.id, max(run.current_attempt, 1), run.image)
    runs.start_soon(run_op, worker.active.add(run), worker)
