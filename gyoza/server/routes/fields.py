"""The types of single fields: in bodies, queries and addresses alike."""

from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from gyoza.models import EventType, check_id, check_image
from gyoza.models.ids import ID_PATTERN
from gyoza.models.images import IMAGE_PATTERN
from gyoza.models.limits import LEAST_RAM_MB

MAX_INT = 2**53  # what every JSON reader keeps exactly, and SQLite stores
REPORTED = [kind for kind in EventType if kind not in (EventType.ASSIGNED, EventType.RETRIED)]
MASK = "***"  # in place of the value of a secret


def _check_image(image: str) -> str:
    """Refuse what is no name; one that only ends too early is left to the worker's policy."""
    check_image(image.removesuffix(":").removesuffix("@"))
    return image


def _check_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("text must not hold a NUL character")
    return text


def _check_variable(name: str) -> str:
    if not name or "=" in name:
        raise ValueError(f"{name[:80]!r} cannot be the name of a variable")
    return _check_text(name)


def _check_number(value: Any) -> Any:
    """Take neither true for 1 nor "1" for it, as pydantic would."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


def at_most(size: int) -> BeforeValidator:
    """Refuse a list or an object that has more members, before a look at any of them."""

    def check(value: Any) -> Any:
        members = cast("list[Any]", value) if isinstance(value, list | dict) else ()
        if len(members) > size:
            raise ValueError(f"must have no more than {size} members")
        return cast("Any", value)

    return BeforeValidator(check)


def _check_object(value: Any) -> Any:
    """Take any object as it is: to look at each field of many would keep others waiting."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return cast("dict[str, Any]", value)


AnyObject = Annotated[Any, AfterValidator(_check_object), WithJsonSchema({"type": "object"})]
Id = Annotated[
    str, AfterValidator(check_id), WithJsonSchema({"type": "string", "pattern": ID_PATTERN})
]
Image = Annotated[
    str,
    AfterValidator(_check_image),
    WithJsonSchema({"type": "string", "pattern": IMAGE_PATTERN}),
]
Text = Annotated[str, AfterValidator(_check_text)]
Variable = Annotated[str, AfterValidator(_check_variable)]


@dataclass(frozen=True)
class NullIsEmpty:
    """Marks a field that may be null for empty, and says so in the schema."""

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_or_empty, handler(kind))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "null"}]}


NULL_IS_EMPTY = NullIsEmpty()
IS_NUMBER = BeforeValidator(_check_number)  # comes last: bounds are of what it leads to
Int = Annotated[int, Field(ge=-MAX_INT, le=MAX_INT), IS_NUMBER]
Count = Annotated[int, Field(ge=0, le=MAX_INT), IS_NUMBER]
Cores = Annotated[
    float,
    AfterValidator(lambda cores: int(cores) if cores == int(cores) else cores),
    Field(ge=0.01, le=MAX_INT, allow_inf_nan=False, description="CPU cores, or a part of one."),
    IS_NUMBER,
]
Ram = Annotated[int, Field(ge=LEAST_RAM_MB, le=MAX_INT), IS_NUMBER]
Amount = Annotated[float, Field(ge=0, le=MAX_INT, allow_inf_nan=False), IS_NUMBER]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), IS_NUMBER]
Wait = Annotated[
    float,
    Field(
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds to wait for news; after 60 the answer comes without any.",
    ),
]
Tag = Annotated[str, Field(min_length=1, max_length=200)]
