"""The states of an op run, the table of its transitions, the names of events and reasons."""

from enum import StrEnum


class OpRunState(StrEnum):
    """Where an op run stands."""

    PENDING = "PENDING"
    ASSIGNED = "ASSIGNED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """Whether the run has ended; only a retry leaves a terminal state."""
        return self in (OpRunState.COMPLETED, OpRunState.FAILED, OpRunState.CANCELLED)

    @property
    def held(self) -> bool:
        """Whether a worker holds the run and its resources are reserved there."""
        return self in (OpRunState.ASSIGNED, OpRunState.RUNNING)

    def can_become(self, other: "OpRunState") -> bool:
        """Whether the state machine has a transition from this state to `other`."""
        return other in TRANSITIONS[self]


_S = OpRunState

TRANSITIONS: dict[OpRunState, frozenset[OpRunState]] = {
    _S.PENDING: frozenset({_S.ASSIGNED, _S.CANCELLED}),
    _S.ASSIGNED: frozenset({_S.RUNNING, _S.PENDING, _S.FAILED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.PENDING}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset({_S.PENDING}),
    _S.CANCELLED: frozenset({_S.PENDING}),
}
"""ASSIGNED may become FAILED: an image that cannot be pulled fails a run that never started."""


class EventType(StrEnum):
    """What an event says; the first block moves the run's state with it."""

    ASSIGNED = "ASSIGNED"
    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    RETRIED = "RETRIED"

    INFO = "INFO"
    PROGRESS = "PROGRESS"
    ERROR = "ERROR"

    @property
    def saying(self) -> bool:
        """Whether it is what an op says and moves no state."""
        return self in (EventType.INFO, EventType.PROGRESS, EventType.ERROR)


class ReleaseReason(StrEnum):
    """Why a worker gives a run back; a server takes any other text as well."""

    SHUTDOWN = "SHUTDOWN"
    WORKER_RESTARTED = "WORKER_RESTARTED"
    ENGINE_RESTARTED = "ENGINE_RESTARTED"
    CONTAINER_GONE = "CONTAINER_GONE"
    FENCED = "FENCED"
    WORKER_LACKS = "WORKER_LACKS"
    ENGINE_FAILED = "ENGINE_FAILED"


class FailureReason(StrEnum):
    """Why a run failed: a closed set, since users decide by it whether to retry."""

    EXIT_CODE = "EXIT_CODE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    TIMED_OUT = "TIMED_OUT"
    DISK_FULL = "DISK_FULL"
    IMAGE_PULL = "IMAGE_PULL"
    OUTPUT_INVALID = "OUTPUT_INVALID"
    ENGINE = "ENGINE"
    POLICY = "POLICY"
    WORKER_LOST = "WORKER_LOST"
    INTERNAL = "INTERNAL"
