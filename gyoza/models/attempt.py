"""One attempt of an op run."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gyoza.models.policies import Constraints
from gyoza.models.record import Record
from gyoza.models.run import EventEntry, ExecutionSummary
from gyoza.models.states import OpRunState


@dataclass
class OpAttempt(Record):
    """One try at a run, with its own state, times and summary.

    Attributes:
        attempt: Number of the attempt within its run, from 1.
        started_at: When the worker reported STARTED, UTC.
        finished_at: When it ended, UTC.
    """

    id: str
    op_run_id: str
    attempt: int
    state: OpRunState
    progress: int = 0
    events: list[EventEntry] = field(default_factory=list[EventEntry])
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    execution_summary: ExecutionSummary = field(default_factory=ExecutionSummary)
    constraints: Constraints = field(default_factory=Constraints)
    started_at: datetime | None = None
    finished_at: datetime | None = None
