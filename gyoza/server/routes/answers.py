"""What answers hold, for the documentation; and what of a run is shown to nobody.

Answers are written straight from the domain types: nothing is checked by these models at run time.
Requests made up from the documentation hold the two against each other.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from gyoza.models import EventType, FailureReason, OpDefinition, OpRun, OpRunState
from gyoza.models.definition import INPUT_TYPES
from gyoza.models.limits import NEXT_PAGE
from gyoza.server.json_text import join_object, write_text
from gyoza.server.routes.fields import MASK
from gyoza.server.store.runs import StoredRun

Responses = dict[int | str, dict[str, Any]]

Natural = Annotated[int, Field(ge=0)]
Percentage = Annotated[int, Field(ge=0, le=100)]


class Answer(BaseModel):
    """Exactly these fields, each of them always."""

    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    """Why a request was not done."""

    detail: Annotated[str, Field(min_length=1, description="A sentence for a person.")]


class Health(Answer):
    """The server is there."""

    status: Literal["ok"]
    version: str


class ConstraintsAnswer(Answer):
    """Hardware a run needs."""

    cpu: float | None
    ram_mb: int | None
    vram_mb: int | None


class RetryPolicyAnswer(Answer):
    """How often a failing run is tried."""

    max_attempts: Annotated[int, Field(ge=1)]
    backoff_s: Annotated[float, Field(ge=0)]


class EventDeliveryAnswer(Answer):
    """Where the events are published besides the run itself."""

    topic: str
    attributes: dict[str, Any]


class InputSpecAnswer(Answer):
    """One input of a definition."""

    type: Annotated[str, Field(json_schema_extra={"enum": list(INPUT_TYPES)})]
    required: bool
    default: Any


class Author(Answer):
    """The API key that something was made with."""

    id: Annotated[str, Field(description="`server` for the server's own key.")]
    name: str


class EventAnswer(Answer):
    """One event of a run."""

    id: Annotated[int, Field(ge=0, description="Position in the run's list.")]
    type: EventType
    t: datetime
    msg: str | int
    payload: dict[str, Any]
    state: OpRunState
    created_by: Annotated[Author | None, Field(description="Null: the server itself.")]


class SummaryAnswer(Answer):
    """What is known of an attempt once it has ended."""

    duration_ms: Natural | None
    worker_id: str | None
    error_message: str | None
    exit_code: int | None
    reason: FailureReason | None
    gpu_ids: list[Natural]


class _Work(Answer):
    """What definitions and runs have in common."""

    image: str
    command: list[str] | None
    env_vars: Annotated[dict[str, str], Field(description=f"Values of secrets are {MASK}.")]
    secrets: list[str]
    constraints: ConstraintsAnswer
    tags: list[str]
    timeout_s: float | None
    grace_s: float | None
    retry_policy: RetryPolicyAnswer
    event_delivery: EventDeliveryAnswer
    created_at: datetime
    updated_at: datetime
    created_by: Annotated[Author | None, Field(description="Null: made by an earlier version.")]


class DefinitionAnswer(_Work):
    """A deployed op."""

    id: str
    version: str
    description: str
    input_specs: dict[str, InputSpecAnswer]


class RunAnswer(_Work):
    """A run."""

    id: str
    state: OpRunState
    progress: Percentage
    current_attempt: Natural
    priority: int
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    op_definition: str | None
    worker_id: str | None
    events: list[EventAnswer]
    execution_summary: SummaryAnswer


class BriefRun(Answer):
    """What a client learns of a run that said `Prefer: return=minimal`."""

    id: str
    state: OpRunState
    current_attempt: Natural


class RunPage(Answer):
    """Some runs, newest first."""

    data: list[RunAnswer]
    has_more: bool


class AttemptAnswer(Answer):
    """One attempt of a run."""

    id: str
    op_run_id: str
    attempt: Annotated[int, Field(ge=1)]
    state: OpRunState
    progress: Percentage
    events: list[EventAnswer]
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    execution_summary: SummaryAnswer
    constraints: ConstraintsAnswer
    started_at: datetime | None
    finished_at: datetime | None


class FeedItem(Answer):
    """An event of a topic."""

    cursor: str
    topic: str
    run_id: str
    attempt: Natural
    event: EventAnswer
    attributes: dict[str, Any]


class FeedPage(Answer):
    """What follows a cursor in a topic's feed."""

    data: list[FeedItem]
    cursor: str


class StateAnswer(Answer):
    """What a run is in."""

    state: OpRunState


class LogOffset(Answer):
    """Where a log goes on."""

    offset: Natural


class HeartbeatAnswer(Answer):
    """What a worker is told."""

    lease_s: Annotated[float, Field(gt=0)]
    states: dict[str, OpRunState]
    drain: bool


class ClaimAnswer(Answer):
    """The runs a worker gets, with the values of their secrets."""

    runs: list[RunAnswer]


class ChangesAnswer(Answer):
    """What others did to a worker's runs."""

    states: dict[str, OpRunState]
    cursor: str


class GpuAnswer(BaseModel):
    """One GPU of a worker, with whatever else the worker tells of it."""

    model_config = ConfigDict(extra="allow")
    id: Natural
    vram_mb: Natural
    tags: list[str]


class ResourcesAnswer(BaseModel):
    """The hardware of a worker, with whatever else the worker tells of it."""

    model_config = ConfigDict(extra="allow")
    cpu_cores: float
    ram_mb: float
    gpus: list[GpuAnswer]


class RunningOpAnswer(Answer):
    """A run that a worker has, as its heartbeat lists it."""

    id: str
    image: str
    constraints: dict[str, Any]


class WorkerAnswer(Answer):
    """A worker, as its last heartbeat tells it."""

    id: str
    state: Literal["online", "draining", "offline", "lost"]
    held: Annotated[Natural, Field(description="Runs that the server has given to it.")]
    drain: Annotated[bool, Field(description="A person asked for it.")]
    draining: Annotated[bool, Field(description="It says so itself.")]
    engine: str | None
    disk: str | None
    resources: ResourcesAnswer
    tags: list[str]
    running_ops: list[RunningOpAnswer]
    max_concurrency: int | None
    version: str | None
    first_seen: datetime
    last_seen: datetime


_REFUSALS = {
    400: "The inputs do not fit, or there is no such transition.",
    401: "The key is missing or wrong.",
    403: "The role of the key does not permit this.",
    404: "There is nothing with this id.",
    408: "The request came too slowly.",
    409: "The run has ended, or is not held by this worker and attempt.",
    413: "The body is too large, or the run holds as much as it may.",
    422: "The request is malformed.",
    429: "Too many requests; come again later.",
    503: "The database did not take this; try again.",
}

REFUSALS: Responses = {
    status: {"model": Problem, "description": what} for status, what in _REFUSALS.items()
}
"""The refusals of every address; for `APIRouter(responses=)`."""
REFUSALS[429]["headers"] = {
    "Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 0}}
}


class KeyAnswer(Answer):
    """A key, but not the key itself."""

    id: str
    name: str
    role: Literal["admin", "client", "worker"]
    worker: Annotated[str | None, Field(description="Pattern of the workers it is for.")]
    tags: Annotated[list[str] | None, Field(description="That its workers may have; null: any.")]
    max_runs: Annotated[int | None, Field(description="That its workers may have together.")]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewKeyAnswer(KeyAnswer):
    """A key that was made now."""

    key: Annotated[str, Field(description="The key itself, told this once.")]


def answers(model: Any, status: int = 200, *more: int) -> Responses:
    """Return the documentation of a success, for the `responses=` of a route."""
    return {code: {"model": model} for code in (status, *more)}


def written(content: bytes, status: int = 200) -> Response:
    """Return an answer that is JSON already."""
    return Response(content, status, media_type="application/json")


def page_written(content: bytes, following: str | None) -> Response:
    """Return a page of a list, and where the next one starts if there is one."""
    answer = written(content)
    if following is not None:
        answer.headers[NEXT_PAGE] = following
    return answer


def write(shown: Any) -> bytes:
    """Return something small as JSON."""
    return write_text(shown).encode()


def write_run(stored: StoredRun, *, secrets: bool = False) -> bytes:
    """Return a run as JSON, with the values of its secrets only if told to."""
    shown = stored.run.to_dict()
    return join_object(shown if secrets else _masked(shown, stored.run.secrets), stored.texts)


def write_listed(run: OpRun) -> bytes:
    """Return a run that has no inputs, outputs and events as JSON."""
    return write(_masked(run.to_dict(), run.secrets))


def write_definition(definition: OpDefinition) -> bytes:
    """Return a definition as JSON, without the values of its secrets."""
    return write(_masked(definition.to_dict(), definition.secrets))


def _masked(shown: dict[str, Any], secrets: list[str]) -> dict[str, Any]:
    values: dict[str, str] = shown["env_vars"]
    hidden = set(secrets)
    shown["env_vars"] = {n: MASK if n in hidden else value for n, value in values.items()}
    return shown
