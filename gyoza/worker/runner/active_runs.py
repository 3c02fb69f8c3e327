"""The runs this worker has, the reason each is stopped for, and the slots that are free."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import trio

from gyoza.models import OpRun, OpRunState
from gyoza.worker.reports.events import EventReporter
from gyoza.worker.worker_context import WorkerContext

logger = logging.getLogger(__name__)


class CancelReason(StrEnum):
    """Why a run's cancel scope is tripped."""

    SERVER_CANCELLED = "SERVER_CANCELLED"
    LEASE_LOST = "LEASE_LOST"
    SHUTDOWN = "SHUTDOWN"


@dataclass
class ActiveRun:
    """One run of this worker, from its claim until its slot is free.

    Attributes:
        scope: The cancel scope around its pipeline.
        reason: Why the scope was tripped, if it was.
        reporter: Tells whether the run's end is settled; nothing trips it then.
        gone: Set when its slot is free.
    """

    run: OpRun
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    reason: CancelReason | None = None
    reporter: EventReporter | None = None
    gone: trio.Event = field(default_factory=trio.Event)

    def trip(self, reason: CancelReason) -> None:
        """Stop the run for this reason, unless it is being stopped or has ended."""
        if self.reason or (self.reporter and self.reporter.settled):
            return
        logger.info("Run %s is stopped: %s.", self.run.id, reason)
        self.reason = reason
        self.scope.cancel(reason)


class ActiveRuns:
    """All runs of the worker, mirrored in the worker context for heartbeats.

    Args:
        context: Lists the runs; used from the Trio thread only.
        slots: Runs at a time.
    """

    def __init__(self, context: WorkerContext, slots: int) -> None:
        self._context = context
        self._slots = slots
        self._runs: dict[str, ActiveRun] = {}
        self._freed = trio.Event()

    @property
    def ids(self) -> list[str]:
        """The ids of all runs."""
        return list(self._runs)

    @property
    def free_slots(self) -> int:
        """How many more runs there may be."""
        return self._slots - len(self._runs)

    async def wait_for_slot(self) -> None:
        """Wait until at least one slot is free."""
        while self.free_slots <= 0:
            self._freed = trio.Event()
            await self._freed.wait()

    def has(self, run: OpRun) -> bool:
        """Whether this attempt of the run is here."""
        known = self._runs.get(run.id)
        return known is not None and known.run.current_attempt == run.current_attempt

    async def wait_until_gone(self, run_id: str) -> None:
        """Wait until no attempt of the run is here."""
        while known := self._runs.get(run_id):
            await known.gone.wait()

    def add(self, run: OpRun) -> ActiveRun:
        """Take a slot for a claimed run."""
        active = self._runs[run.id] = ActiveRun(run)
        self._context.add_running_op(run.id, run.image, run.inputs, run.constraints.to_dict())
        self._context.set_run_state(run.id, run.state)
        return active

    def remove(self, active: ActiveRun) -> None:
        """Free the run's slot."""
        del self._runs[active.run.id]
        self._context.remove_running_op(active.run.id)
        active.gone.set()
        self._freed.set()

    def observe(self, states: Mapping[str, str]) -> None:
        """Take in the states that the server tells, and stop the runs that are no longer ours."""
        for run_id, state in states.items():
            active = self._runs.get(run_id)
            if active is None:
                continue
            self._context.set_run_state(run_id, state)
            if self._context.is_run_cancelled(run_id):
                active.trip(CancelReason.SERVER_CANCELLED)
            elif state not in (OpRunState.ASSIGNED, OpRunState.RUNNING):
                active.trip(CancelReason.LEASE_LOST)

    def trip_all(self, reason: CancelReason) -> None:
        """Stop every run."""
        for active in self._runs.values():
            active.trip(reason)
