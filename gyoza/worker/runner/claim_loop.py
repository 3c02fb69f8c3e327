"""Claims runs as long as there are free slots, and starts a task for each."""

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from gyoza.client import ApiError, ClientError
from gyoza.client.long_poll import LongPoll
from gyoza.models import OpRun, ReleaseReason
from gyoza.worker.backoff import LONG_POLL_S, Backoff, spread
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.errors import PolicyRefused
from gyoza.worker.runner.active_runs import REPORT_S
from gyoza.worker.runner.claimed import UnreadableRun, read_run, run_id_of
from gyoza.worker.runner.giving_back import give_back, refuse
from gyoza.worker.runner.run_task import identity_of, run_op
from gyoza.worker.runner.worker import Worker

MIN_PERIOD_S = 1.0
"""Least seconds between claims that bring nothing, for a server that answers them at once."""

DRAIN_S = 5.0
"""Seconds in which the claim in flight is answered after a drain has begun."""

logger = logging.getLogger(__name__)


async def claim_loop(worker: Worker, runs: trio.Nursery) -> None:
    """Claim and start runs until the worker drains; the claim in flight is finished first.

    With `max_runs`, no more than that many are started, and then the worker drains.
    """
    left = worker.settings.max_runs or math.inf
    with trio.CancelScope() as claiming:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_after_drain, worker, claiming)
            backoff, poll = Backoff(), LongPoll(LONG_POLL_S)
            while await _wait_to_claim(worker):
                left -= await _claim_once(worker, runs, backoff, poll, left)
            nursery.cancel_scope.cancel()


async def _wait_to_claim(worker: Worker) -> bool:
    """Wait for a free slot and readiness; return False as soon as the worker drains."""

    async def end() -> None:
        await worker.draining.wait()
        waiting.cancel_scope.cancel()

    async with trio.open_nursery() as waiting:
        waiting.start_soon(end)
        await worker.active.wait_for_slot()
        await worker.readiness.wait()
        waiting.cancel_scope.cancel()
    return not worker.draining.is_set()


async def _end_after_drain(worker: Worker, claiming: trio.CancelScope) -> None:
    await worker.draining.wait()
    claiming.deadline = trio.current_time() + DRAIN_S


async def _claim_once(
    worker: Worker, runs: trio.Nursery, backoff: Backoff, poll: LongPoll, left: float
) -> int:
    """Claim up to as many runs as there are slots and as are left; return how many are started."""
    asked_at = trio.current_time()
    # After a failure one: more were too much perhaps, for the way here or for this worker.
    most = 1 if backoff.failing or worker.shortage.lasts else min(worker.active.free_slots, left)
    if worker.engine_trouble.lasts:
        most = min(most, 2)  # of two it can be told whether one of them is at fault
    claimed = None
    try:
        # A run that the server assigns in the moment a claim is given up is in the next answer, or
        # goes to another worker when its lease ends.
        with worker.readiness.required(), poll.asking() as wait_s:
            claimed = await worker.client.claim(
                worker.settings.worker_id,
                max_runs=int(most),
                wait_s=spread(wait_s),
                holding=worker.active.ids,
            )
    except (ApiError, ClientError) as error:
        logger.warning("No runs can be claimed: %s", error)
        await backoff.wait(worker.draining)
    if claimed is None:
        return 0
    backoff.reset()
    started = 0
    unwanted: list[Callable[[], Awaitable[None]]] = []
    for data in claimed:
        if run := _read(worker, data, unwanted):
            started += _start(worker, runs, run, unwanted)
            if started == left:
                logger.info("That was the last run to claim: the worker leaves after it.")
                worker.stop_claiming()
    with trio.move_on_after(REPORT_S):  # what the server does not hear is in its next answer
        for tell in unwanted:
            await tell()
    if not started:
        with trio.move_on_at(asked_at + MIN_PERIOD_S):
            await worker.draining.wait()
    return started


def _read(
    worker: Worker, data: dict[str, Any], unwanted: list[Callable[[], Awaitable[None]]]
) -> OpRun | None:
    """Return the run; None if it is none that this worker executes, which is to be told."""
    try:
        run_id, attempt = run_id_of(data)
    except UnreadableRun as error:
        logger.error("The server sent a run that cannot be read: %s", error)
        return None
    try:
        return read_run(data, worker.settings.policy)
    except PolicyRefused as refusal:
        worker_id = worker.settings.worker_id
        identity = ContainerIdentity(worker_id, run_id, max(attempt, 1), worker.server)
        unwanted.append(partial(refuse, worker.tools, identity, refusal))
        return None


def _start(
    worker: Worker,
    runs: trio.Nursery,
    run: OpRun,
    unwanted: list[Callable[[], Awaitable[None]]],
) -> bool:
    """Start a claimed run, unless it is here already or cannot be taken; return whether."""
    identity = identity_of(run, worker)
    if worker.active.has_attempt(run.id, identity.attempt):
        return False  # claimed twice, since the first answer seemed lost
    if worker.draining.is_set() or worker.active.free_slots <= 0:  # more than were asked for
        reason = ReleaseReason.SHUTDOWN if worker.draining.is_set() else "NO_SLOT"
        unwanted.append(partial(give_back, worker.tools, identity, reason))
        return False
    logger.info("Run %s: attempt %d of %s.", run.id, identity.attempt, run.image)
    runs.start_soon(run_op, worker.active.add(run), worker)
    worker.note_claimed()
    return True
