"""Learns what others do to this worker's runs, above all that one is cancelled, at once."""

import logging
from typing import Any

import trio

from gyoza.client import ApiError, ClientError, UnexpectedAnswer
from gyoza.client.long_poll import LongPoll
from gyoza.models import OpRunState
from gyoza.worker.backoff import LONG_POLL_S, Backoff, spread
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.runner.worker import Worker

POLL_S = 1.0
"""Seconds between questions to a server that cannot hold them open."""

ASK_AGAIN_S = 60.0
"""Seconds after which a server that told no changes is asked for them again: it may be new."""

logger = logging.getLogger(__name__)


async def refresh_states(worker: Worker) -> None:
    """Keep the states of the runs fresh until cancelled.

    By the long poll of changes; with a server that has none, by asking for each run.
    """
    told = False
    while True:
        try:
            await _follow_changes(worker)
        except _NoChanges:
            if not told:
                logger.info("The server tells no changes: each run is asked for.")
            told = True
        with trio.move_on_after(ASK_AGAIN_S):
            await _poll_runs(worker)


class _NoChanges(Exception):
    """The server has no long poll of changes."""


def is_held(found: dict[str, Any], identity: ContainerIdentity) -> bool:
    """Whether the run found at the server is at that worker and attempt, as far as it tells.

    Raises:
        UnexpectedAnswer: If it is no run.
    """
    return (
        _state_of(found) in (OpRunState.ASSIGNED, OpRunState.RUNNING)
        and found.get("worker_id") in (None, identity.worker_id)
        and (found.get("current_attempt") or identity.attempt) == identity.attempt
    )


async def _follow_changes(worker: Worker) -> None:
    cursor: str | None = None
    backoff, poll = Backoff(), LongPoll(LONG_POLL_S)
    while True:
        asked_at = trio.current_time()
        try:
            with poll.asking() as wait_s:
                answer = await worker.client.get_changes(
                    worker.settings.worker_id, after=cursor, wait_s=spread(wait_s)
                )
            worker.contact.require(answer, "cursor")
        except (ApiError, ClientError) as error:
            if worker.contact.has_no_endpoint(error):
                raise _NoChanges from error
            logger.debug("Changes cannot be followed: %s", error)
            await backoff.wait()
            continue
        backoff.reset()
        worker.active.observe(answer.get("states") or {})
        following = answer.get("cursor")
        if following == cursor:  # nothing new: a server that does not wait is not pressed
            await trio.sleep_until(asked_at + POLL_S)
        cursor = following


async def _poll_runs(worker: Worker) -> None:
    while True:
        for run_id in worker.active.ids:
            try:
                state = _state_here(worker, await worker.client.get_run(run_id))
            except (ApiError, ClientError) as error:
                logger.debug("The state of run %s cannot be read: %s", run_id, error)
            else:
                worker.active.observe({run_id: state})
        await trio.sleep(POLL_S)


def _state_here(worker: Worker, found: dict[str, Any]) -> str:
    """Return the run's state as far as it is this worker's; PENDING if another one has it."""
    holder = found.get("worker_id") or worker.settings.worker_id
    return _state_of(found) if holder == worker.settings.worker_id else OpRunState.PENDING


def _state_of(found: dict[str, Any]) -> OpRunState:
    try:
        return OpRunState(found.get("state", ""))
    except ValueError as error:
        raise UnexpectedAnswer("The answer to a question for a run is no run.") from error
