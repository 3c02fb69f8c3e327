"""An op run, its events and the summary of its execution."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gyoza.models.policies import Constraints, EventDelivery, RetryPolicy
from gyoza.models.record import Record
from gyoza.models.states import FailureReason, OpRunState


@dataclass
class EventEntry(Record):
    """One event of a run.

    Attributes:
        t: When the server took it, UTC.
        type: See `EventType`.
        msg: Text, or the percentage 0-100 for PROGRESS.
        payload: Plain data.
        id: Position in the run's list, from 0.
        state: The run's state after the event.
        created_by: `id` and `name` of the API key it came with; None if the server made it.
    """

    t: datetime
    type: str
    msg: str | int
    payload: dict[str, Any] = field(default_factory=dict[str, Any])
    id: int = 0
    state: OpRunState | None = None
    created_by: dict[str, str] | None = None


@dataclass
class ExecutionSummary(Record):
    """What is known of an attempt once it has ended.

    Attributes:
        duration_ms: Milliseconds from STARTED to the end.
        worker_id: The worker that executed it.
        error_message: One sentence why it failed.
        exit_code: The container's exit code.
        reason: Why it failed, from a closed set.
        gpu_ids: The GPUs it had to itself.
    """

    duration_ms: int | None = None
    worker_id: str | None = None
    error_message: str | None = None
    exit_code: int | None = None
    reason: FailureReason | None = None
    gpu_ids: list[int] = field(default_factory=list[int])


@dataclass
class OpRun(Record):
    """One execution of an image with inputs, as the server tells it.

    Only `id` is certain to be there: a small server sends little more than the image and inputs.

    Attributes:
        current_attempt: Number of the current attempt, from 1; 0 before the first claim.
        priority: Higher runs first.
        command: Arguments in place of the image's command.
        secrets: Names of `env_vars` whose values are shown to nobody: not in logs, not in answers.
        timeout_s: Seconds the container may run; None for no limit.
        grace_s: Seconds between the stop signal and SIGKILL; None for the worker's own.
        op_definition: `id` of the definition it was made from, if any.
        worker_id: The worker that holds it, or held it last.
        created_by: `id` and `name` of the API key that submitted it.
    """

    id: str
    state: OpRunState = OpRunState.PENDING
    progress: int = 0
    current_attempt: int = 0
    priority: int = 5
    image: str = ""
    command: list[str] | None = None
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    env_vars: dict[str, str] = field(default_factory=dict[str, str])
    secrets: list[str] = field(default_factory=list[str])
    constraints: Constraints = field(default_factory=Constraints)
    tags: list[str] = field(default_factory=list[str])
    timeout_s: float | None = None
    grace_s: float | None = None
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    event_delivery: EventDelivery = field(default_factory=EventDelivery)
    op_definition: str | None = None
    worker_id: str | None = None
    events: list[EventEntry] = field(default_factory=list[EventEntry])
    execution_summary: ExecutionSummary = field(default_factory=ExecutionSummary)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: dict[str, str] | None = None
