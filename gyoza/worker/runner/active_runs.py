"""The runs this worker has, the reason each is stopped for, and the slots that are free."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import trio

from gyoza.models import OpRun, OpRunState
from gyoza.worker.execution_pipeline.run_scope import RunScope
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.run_record import RunRecord
from gyoza.worker.worker_context import WorkerContext

REPORT_S = 15.0
"""Seconds in which the end of a run must be reported when the worker goes; the next start does it
otherwise."""

logger = logging.getLogger(__name__)


class CancelReason(StrEnum):
    """Why a run's cancel scope is tripped."""

    SERVER_CANCELLED = "SERVER_CANCELLED"
    LEASE_LOST = "LEASE_LOST"
    SHUTDOWN = "SHUTDOWN"
    FENCED = "FENCED"


@dataclass
class ActiveRun:
    """One run of this worker, from its claim until its slot is free.

    Attributes:
        scope: The cancel scope around its pipeline.
        reason: Why the scope was tripped, if it was.
        tripped: Set when there is a reason.
        leaving: Set when the worker goes: what is under way has little time left.
        record: What has happened so far; None until its directory is made.
        reporter: Its reports; None until then.
        work: What its pipeline works with; None until its record is open.
        gone: Set when its slot is free.
    """

    run: OpRun
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    reason: CancelReason | None = None
    tripped: trio.Event = field(default_factory=trio.Event)
    leaving: trio.Event = field(default_factory=trio.Event)
    record: RunRecord | None = None
    reporter: EventReporter | None = None
    work: RunScope | None = None
    gone: trio.Event = field(default_factory=trio.Event)

    @property
    def finished(self) -> bool:
        """Whether there is nothing to stop any more: what is left is the report."""
        return self.record is not None and self.record.finished

    @property
    def not_ours(self) -> bool:
        """Whether the server has said so: nothing is reported then."""
        return self.reason in (CancelReason.SERVER_CANCELLED, CancelReason.LEASE_LOST)

    def trip(self, reason: CancelReason) -> None:
        """Stop the run for this reason, unless it is being stopped or has ended."""
        if reason is CancelReason.SHUTDOWN:
            self.leaving.set()
        reported = self.record is not None and self.record.end is not None
        if self.reason or (reported and reason is not CancelReason.SHUTDOWN):
            return  # the server's answer to the report tells the rest
        if self.finished and reason is CancelReason.FENCED:
            return
        logger.info("Run %s is stopped: %s.", self.run.id, reason)
        self.reason = reason
        self.tripped.set()
        if self.reporter and self.not_ours:
            self.reporter.lost.set()
        if self.finished and reason is CancelReason.SHUTDOWN:
            self.scope.deadline = trio.current_time() + REPORT_S
        else:
            self.scope.cancel(reason)


class ActiveRuns:
    """All runs of the worker, mirrored in the worker context for heartbeats.

    Args:
        context: Lists the runs; used from the Trio thread only.
        slots: Runs at a time.

    Attributes:
        slots: See the arguments.
    """

    def __init__(self, context: WorkerContext, slots: int) -> None:
        self._context = context
        self.slots = slots
        self._runs: dict[tuple[str, int], ActiveRun] = {}
        self._freed = trio.Event()

    @property
    def ids(self) -> list[str]:
        """The ids of all runs."""
        return list(dict.fromkeys(run_id for run_id, _ in self._runs))

    @property
    def count(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    @property
    def free_slots(self) -> int:
        """How many more runs there may be."""
        return self.slots - len(self._runs)

    async def wait_for_slot(self) -> None:
        """Wait until at least one slot is free."""
        while self.free_slots <= 0:
            self._freed = trio.Event()
            await self._freed.wait()

    @property
    def at_work(self) -> list[RunScope]:
        """What the pipelines of all runs work with, as far as they have come to it."""
        return [active.work for active in self._runs.values() if active.work is not None]

    def has_attempt(self, run_id: str, attempt: int) -> bool:
        """Whether this attempt is here; a server that counts none has only first ones."""
        return (run_id, attempt) in self._runs

    def record_of(self, run_id: str, attempt: int) -> RunRecord | None:
        """Return the record of an attempt that is here, if it has one."""
        active = self._runs.get((run_id, attempt))
        return active and active.record

    async def wait_until_gone(self, run_id: str) -> None:
        """Wait until no attempt of the run is here."""
        while attempts := self._attempts_of(run_id):
            await attempts[0].gone.wait()

    async def wait_for_turn(self, active: ActiveRun) -> None:
        """Wait until no earlier attempt of its run is here: one may still be cleaning up."""
        while (first := self._attempts_of(active.run.id)[0]) is not active:
            await first.gone.wait()

    def add(self, run: OpRun) -> ActiveRun:
        """Take a slot for a claimed run."""
        active = self._runs[_key(run)] = ActiveRun(run)
        self._context.add_running_op(run.id, run.image, run.inputs, run.constraints.to_dict())
        self._context.set_run_state(run.id, run.state)
        return active

    def remove(self, active: ActiveRun) -> None:
        """Free the run's slot."""
        del self._runs[_key(active.run)]
        self._context.remove_running_op(active.run.id)
        active.gone.set()
        self._freed.set()

    def observe(self, states: Mapping[str, str]) -> None:
        """Take in the states that the server tells, and stop the runs that are no longer ours."""
        for run_id, state in states.items():
            self._context.set_run_state(run_id, state)
            for active in self._attempts_of(run_id):
                if self._context.is_run_cancelled(run_id):
                    active.trip(CancelReason.SERVER_CANCELLED)
                elif state not in (OpRunState.ASSIGNED, OpRunState.RUNNING):
                    active.trip(CancelReason.LEASE_LOST)

    def trip_all(self, reason: CancelReason) -> None:
        """Stop every run."""
        for active in self._runs.values():
            active.trip(reason)

    def _attempts_of(self, run_id: str) -> list[ActiveRun]:
        """Return the attempts of a run that are here, oldest first."""
        return [active for (known, _), active in self._runs.items() if known == run_id]


def _key(run: OpRun) -> tuple[str, int]:
    return run.id, max(run.current_attempt, 1)
