"""Op definitions and the specifications of their inputs.

Errors:
    ValueError
      InputValidationError   inputs do not satisfy a definition's specs
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Self

from gyoza.models.policies import Constraints, EventDelivery, RetryPolicy
from gyoza.models.record import Record

MAX_ERRORS, MAX_TAKEN = 10, 1000
"""Unknown inputs that are told, and characters of what is told of the known ones."""


class InputValidationError(ValueError):
    """Inputs do not satisfy a definition's specs.

    Attributes:
        errors: One sentence for every wrong input.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__(" ".join(errors))
        self.errors = errors

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be copied and pickled."""
        return type(self), (self.errors,)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


INPUT_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "dict": lambda value: isinstance(value, dict),
    "any": lambda _value: True,
}
"""The types an input can have, and the test a value of that type passes."""


@dataclass
class InputSpec(Record):
    """One input of a definition.

    Attributes:
        type: A key of `INPUT_TYPES`.
        required: Whether a run must give it.
        default: The value when it is not given; None leaves it out.
    """

    type: str
    required: bool = True
    default: Any = None


@dataclass
class InputSpecs:
    """The inputs of a definition by name."""

    specs: dict[str, InputSpec] = field(default_factory=dict[str, InputSpec])

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from `{name: {"type", "required", "default"}}`."""
        return cls({name: InputSpec.from_dict(spec) for name, spec in data.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return `{name: {"type", "required", "default"}}`."""
        return {name: spec.to_dict() for name, spec in self.specs.items()}

    def validate(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return `inputs` with the defaults filled in.

        Raises:
            InputValidationError: With one sentence for every wrong or missing input, and for the
                first of the unknown ones.
        """
        if not self.specs:
            return inputs
        unknown = (name for name in inputs if name not in self.specs)
        errors = [self._unknown(name) for name in islice(unknown, MAX_ERRORS)]
        complete = dict(inputs)
        for name, spec in self.specs.items():
            if name in inputs:
                if not INPUT_TYPES[spec.type](inputs[name]):
                    got = type(inputs[name]).__name__
                    errors.append(f"Input '{name}' must be of type {spec.type}, not {got}.")
            elif spec.default is not None:
                complete[name] = spec.default
            elif spec.required:
                errors.append(f"Input '{name}' ({spec.type}) is required.")
        if errors:
            raise InputValidationError(errors)
        return complete

    def _unknown(self, name: str) -> str:
        takes = ", ".join(sorted(self.specs))[:MAX_TAKEN]
        return f"Input '{name[:80]}' is unknown; this op takes {takes}."


@dataclass
class OpDefinition(Record):
    """A deployed op: what its runs inherit. `id` and `version` name it.

    Attributes:
        secrets: Names of `env_vars` whose values are shown to nobody, as in `OpRun`.
        created_by: `id` and `name` of the API key that deployed it.
    """

    id: str
    image: str
    version: str = "1"
    description: str = ""
    command: list[str] | None = None
    input_specs: dict[str, Any] = field(default_factory=dict[str, Any])
    env_vars: dict[str, str] = field(default_factory=dict[str, str])
    secrets: list[str] = field(default_factory=list[str])
    constraints: Constraints = field(default_factory=Constraints)
    tags: list[str] = field(default_factory=list[str])
    timeout_s: float | None = None
    grace_s: float | None = None
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    event_delivery: EventDelivery = field(default_factory=EventDelivery)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: dict[str, str] | None = None

    def validate_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return `inputs` with defaults; see `InputSpecs.validate`."""
        return InputSpecs.from_dict(self.input_specs).validate(inputs)
