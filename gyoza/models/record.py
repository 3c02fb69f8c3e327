"""`to_dict` and `from_dict` for the dataclasses of this package."""

from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Protocol, Self, Union, cast, get_args, get_origin, get_type_hints


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


class Record:
    """Base of the shared dataclasses: plain JSON data in, plain JSON data out."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-compatible form; times become ISO 8601 UTC."""
        return {f.name: _encode(getattr(self, f.name)) for f in fields(cast("_Dataclass", self))}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from JSON data; unknown keys are ignored, missing or null ones take defaults."""
        hints = _hints_of(cls)
        given = {
            f.name: _decode(hints[f.name], data[f.name])
            for f in fields(cast("type[_Dataclass]", cls))
            if data.get(f.name) is not None
        }
        return cls(**given)


@cache
def _hints_of(cls: type[Record]) -> dict[str, Any]:
    return get_type_hints(cls)


def format_time(moment: datetime) -> str:
    """Return ISO 8601 in UTC with a trailing `Z`; naive times are taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, list):
        return [_encode(item) for item in cast("list[Any]", value)]
    return value


def _decode(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (UnionType, Union):  # every union here is `X | None` or `str | int`
        hint = get_args(hint)[0]
    if get_origin(hint) is list:
        return [_decode(get_args(hint)[0], item) for item in value]
    if not isinstance(hint, type):
        return value
    if issubclass(hint, Record):
        return hint.from_dict(value)
    if issubclass(hint, datetime):
        return datetime.fromisoformat(value)
    if issubclass(hint, StrEnum):
        return hint(value)
    return value
