"""What bodies may hold; pydantic checks them before any handler runs."""

from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)

from gyoza.models import (
    Constraints,
    EventDelivery,
    EventType,
    OpDefinition,
    OpRun,
    OpRunState,
    RetryPolicy,
    check_id,
)
from gyoza.models.definition import INPUT_TYPES
from gyoza.models.limits import (
    ARGUMENTS,
    ATTRIBUTES_BYTES,
    BATCH_EVENTS,
    GPUS,
    INPUT_SPECS,
    INPUTS,
    RESOURCES_BYTES,
    RUNNING_OPS,
    TAGS,
    VARIABLES,
    WORKER_TAGS,
)
from gyoza.models.policies import MAX_GRACE_S
from gyoza.server.json_text import write_text
from gyoza.server.routes.fields import (
    IS_NUMBER,
    MASK,
    NULL_IS_EMPTY,
    REPORTED,
    Amount,
    AnyObject,
    Cores,
    Count,
    Id,
    Image,
    Int,
    Ram,
    Seconds,
    Tag,
    Text,
    Variable,
    Wait,
    at_most,
)

Inputs = Annotated[dict[str, Any], at_most(INPUTS)]
WorkerTags = Annotated[list[str], at_most(WORKER_TAGS)]


class Lenient(BaseModel):
    """A body of a program: fields it knows and this server does not are ignored."""

    model_config = ConfigDict(extra="ignore")


class Strict(BaseModel):
    """A body that a person writes: an unknown field is a slip of the pen."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_known_fields(cls, told: Any) -> Any:
        if isinstance(told, dict):
            for name in cast("dict[str, Any]", told):
                if name not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    raise ValueError(f"there is no field {name[:80]!r}; known are {known}")
        return cast("Any", told)


class ConstraintsModel(Strict):
    """Hardware a run needs."""

    cpu: Cores | None = None
    ram_mb: Ram | None = None
    vram_mb: Count | None = None

    def to_model(self) -> Constraints:
        """Return the domain type."""
        return Constraints(self.cpu, self.ram_mb, self.vram_mb)


class RetryPolicyModel(Strict):
    """How often a failing run is tried."""

    max_attempts: Annotated[int, Field(ge=1, le=1000), IS_NUMBER] = 1
    backoff_s: Seconds = 0.0

    def to_model(self) -> RetryPolicy:
        """Return the domain type."""
        return RetryPolicy(self.max_attempts, self.backoff_s)


class EventDeliveryModel(Strict):
    """Where a run's events are published besides the run itself."""

    topic: str = ""
    attributes: Annotated[dict[str, Any], NULL_IS_EMPTY] = {}

    @model_validator(mode="after")
    def _topic_is_an_id(self) -> Self:
        if self.topic:
            check_id(self.topic, "topic")
        if len(write_text(self.attributes).encode()) > ATTRIBUTES_BYTES:
            raise ValueError(f"attributes may be {ATTRIBUTES_BYTES // 1024} KiB of JSON, no more")
        return self

    def to_model(self) -> EventDelivery:
        """Return the domain type."""
        return EventDelivery(self.topic, self.attributes)


class InputSpecModel(Strict):
    """One input of a definition."""

    type: str
    required: StrictBool = True
    default: Any = None

    @model_validator(mode="after")
    def _default_has_the_type(self) -> Self:
        if self.type not in INPUT_TYPES:
            raise ValueError(f"type must be one of {', '.join(INPUT_TYPES)}, not {self.type!r}")
        if self.default is not None and not INPUT_TYPES[self.type](self.default):
            raise ValueError(f"default must be of type {self.type}")
        return self


class _Work(Strict):
    """What definitions and ad-hoc runs have in common."""

    image: Image
    command: Annotated[list[Text], at_most(ARGUMENTS)] | None = None
    env_vars: Annotated[dict[Variable, Text], at_most(VARIABLES), NULL_IS_EMPTY] = {}
    secrets: Annotated[list[str], at_most(VARIABLES)] | None = Field(
        None, description="Names of env_vars whose values are shown to nobody but the worker."
    )
    constraints: Annotated[ConstraintsModel, NULL_IS_EMPTY] = ConstraintsModel()
    tags: Annotated[list[Tag], at_most(TAGS)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), IS_NUMBER] | None = None
    grace_s: (
        Annotated[float, Field(ge=0, le=MAX_GRACE_S, allow_inf_nan=False), IS_NUMBER] | None
    ) = None
    retry_policy: Annotated[RetryPolicyModel, NULL_IS_EMPTY] = RetryPolicyModel()
    event_delivery: Annotated[EventDeliveryModel, NULL_IS_EMPTY] = EventDeliveryModel()

    @model_validator(mode="after")
    def _secrets_are_variables(self) -> Self:
        for name in self.secrets or []:
            if name not in self.env_vars:
                raise ValueError(f"secrets: there is no {name[:80]!r} among env_vars")
            if self.env_vars[name] == MASK:
                raise ValueError(f"{name[:80]!r} is the mask of a secret; give its real value")
        return self


class DefinitionBody(_Work):
    """An op to deploy."""

    id: Id
    version: Id = "1"
    description: str = ""
    input_specs: Annotated[dict[str, InputSpecModel], at_most(INPUT_SPECS), NULL_IS_EMPTY] = {}
    created_at: Any = Field(None, description="Ignored: as the server told it before.")
    updated_at: Any = Field(None, description="Ignored: as the server told it before.")
    created_by: Any = Field(None, description="Ignored: as the server told it before.")

    def to_model(self) -> OpDefinition:
        """Return the domain type."""
        return OpDefinition(
            id=self.id,
            version=self.version,
            description=self.description,
            image=self.image,
            command=self.command,
            input_specs={name: spec.model_dump() for name, spec in self.input_specs.items()},
            env_vars=self.env_vars,
            secrets=self.secrets or [],
            constraints=self.constraints.to_model(),
            tags=self.tags or [],
            timeout_s=self.timeout_s,
            grace_s=self.grace_s,
            retry_policy=self.retry_policy.to_model(),
            event_delivery=self.event_delivery.to_model(),
        )


class DefinitionRunBody(Strict):
    """A run of a definition."""

    inputs: Annotated[Inputs, NULL_IS_EMPTY] = {}
    priority: Int = 5
    version: Id | None = None
    event_delivery: EventDeliveryModel | None = Field(
        None, description="In place of the definition's."
    )


class RunBody(_Work):
    """An ad-hoc run."""

    inputs: Annotated[Inputs, NULL_IS_EMPTY] = {}
    priority: Int = 5

    def to_model(self) -> OpRun:
        """Return the domain type, still without an id."""
        return OpRun(
            id="",
            priority=self.priority,
            image=self.image,
            command=self.command,
            inputs=self.inputs,
            env_vars=self.env_vars,
            secrets=self.secrets or [],
            constraints=self.constraints.to_model(),
            tags=self.tags or [],
            timeout_s=self.timeout_s,
            grace_s=self.grace_s,
            retry_policy=self.retry_policy.to_model(),
            event_delivery=self.event_delivery.to_model(),
        )


class RunChange(Strict):
    """A partial update of a run."""

    state: OpRunState | None = None
    outputs: AnyObject | None = None
    priority: Int | None = None


class SummaryBody(Lenient):
    """What a worker knows of an attempt that ends."""

    duration_ms: Count | None = None
    error_message: str | None = None
    exit_code: Int | None = None
    gpu_ids: Annotated[list[Count], at_most(GPUS)] | None = None


class _Event(Lenient):
    """What all events have."""

    msg: StrictInt | StrictStr = ""
    payload: Annotated[AnyObject, NULL_IS_EMPTY] = {}


class SayingBody(_Event):
    """One event of many."""

    type: Literal["INFO", "ERROR", "PROGRESS"]
    seq: Count

    @model_validator(mode="after")
    def _progress_is_a_percentage(self) -> Self:
        _check_progress(EventType(self.type), self.msg)
        return self


class EventBatchBody(Lenient):
    """Events of an attempt's op, in order."""

    worker_id: Id
    attempt: Count
    events: Annotated[list[SayingBody], at_most(BATCH_EVENTS)]


class EventBody(_Event):
    """One event of a run."""

    type: Annotated[EventType, WithJsonSchema({"enum": REPORTED})]
    worker_id: Id | None = None
    attempt: Count | None = None
    seq: Count | None = None
    summary: SummaryBody | None = None

    @model_validator(mode="after")
    def _type_fits_msg(self) -> Self:
        if self.type not in REPORTED:
            raise ValueError(f"events of type {self.type} come from the server alone")
        _check_progress(self.type, self.msg)
        return self


def _check_progress(kind: EventType, msg: int | str) -> None:
    if kind is EventType.PROGRESS and not (isinstance(msg, int) and 0 <= msg <= 100):
        raise ValueError("the msg of a PROGRESS event must be a whole number from 0 to 100")


class ReleaseBody(Lenient):
    """A run given back."""

    worker_id: Id
    attempt: Count
    reason: str = Field("RELEASED", max_length=1000)


class LogBody(Lenient):
    """A chunk of log text; `offset` counts the bytes of UTF-8 before it."""

    offset: Count
    data: str
    worker_id: Id | None = None
    attempt: Count | None = None
    final: StrictBool = Field(False, description="The log is whole with this text.")


class GpuBody(Lenient):
    """One GPU of a worker."""

    model_config = ConfigDict(extra="allow")
    id: Count
    vram_mb: Count
    tags: WorkerTags = []


class ResourcesBody(Lenient):
    """The hardware of a worker."""

    model_config = ConfigDict(extra="allow")
    cpu_cores: Amount = 0
    ram_mb: Amount = 0
    gpus: Annotated[list[GpuBody], at_most(GPUS)] = []

    @model_validator(mode="before")
    @classmethod
    def _is_short(cls, told: Any) -> Any:
        if len(write_text(told)) > RESOURCES_BYTES:
            raise ValueError(f"may be {RESOURCES_BYTES // 1024} KiB of JSON, no more")
        return told

    @model_validator(mode="after")
    def _gpu_ids_differ(self) -> Self:
        if len({gpu.id for gpu in self.gpus}) < len(self.gpus):
            raise ValueError("two GPUs have the same id")
        return self


class RunningOpBody(Lenient):
    """A run that a worker has."""

    id: Id
    image: str = ""
    constraints: Annotated[dict[str, Any], NULL_IS_EMPTY] = {}


class HeartbeatBody(Lenient):
    """What a worker says every few seconds."""

    worker_id: Id
    resources: ResourcesBody = ResourcesBody()
    tags: WorkerTags = []
    running_ops: Annotated[list[RunningOpBody], at_most(RUNNING_OPS)] = []
    draining: StrictBool = False
    engine: str | None = None
    disk: str | None = None
    max_concurrency: Int | None = None
    version: str | None = None
    marks_log_end: StrictBool = Field(
        False, description="It tells when the log of an attempt is whole."
    )
    instance: Id | None = Field(None, description="Another one for each start of the process.")
    previous_instance: Id | None = Field(
        None, description="The one before it with the same work directory, which has ended."
    )
    leaving: StrictBool = Field(False, description="The process ends; this is its last heartbeat.")


class ClaimBody(Lenient):
    """A worker's wish for runs."""

    max_runs: Annotated[int, Field(ge=1, le=1000), IS_NUMBER] = 1
    wait_s: Annotated[Wait, IS_NUMBER] = 0.0
    holding: Annotated[list[str], at_most(RUNNING_OPS)] | None = None
