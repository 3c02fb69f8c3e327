"""Plain data: what may cross between the worker and an op, in either direction.

Plain are null, bool, int, float, str, list, tuple, and dict with string keys, nested, as far as
JSON can say it: no NaN or infinity, no half of a surrogate pair.

Errors:
    ValueError
      NotPlainData   a value that is not plain data, or more of it than the limits allow
"""

import math
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any, cast

from gyoza.models.limits import VALUES

MAX_INT_BITS = 1024

_PIECE = 64 * 1024
"""Characters of a text that are turned into JSON at once, of which each can become 24 bytes."""


class NotPlainData(ValueError):
    """A value that is not plain data; `str()` says why, without a full stop."""


@dataclass(frozen=True)
class Limits:
    """How much plain data is taken.

    Attributes:
        size: Bytes of the file, and of the data as compact JSON; half of what the server takes as
            the body of a request.
        depth: Lists, tuples and dicts within each other, the outermost counted.
        nodes: Values and keys in all, one that is shared counted as often as JSON would repeat it.
    """

    size: int = 8 * 1024 * 1024
    depth: int = 64
    nodes: int = VALUES


def plain_copy(value: Any, limits: Limits) -> Any:
    """Return `value` with tuples as lists and nothing shared: what JSON would make of it.

    Raises:
        NotPlainData: If it is not plain data within the limits. Nothing is copied before that is
            certain, so that a small value which refers to itself many times over costs nothing.
    """
    check_plain(value, limits)
    return _copy(value)


def check_plain(value: Any, limits: Limits) -> None:
    """Do nothing if `value` is plain data within the limits.

    Raises:
        NotPlainData: If it is not.
    """
    _Check(limits).visit(value, None, 1)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in cast("list[Any]", value)]
    return value


@dataclass(frozen=True)
class _Place:
    """Where a value is, for the sentence of an error: a key or index, and what it is within."""

    key: str | int
    within: "_Place | None"

    def __str__(self) -> str:
        key = shorten(self.key) if isinstance(self.key, str) else self.key
        return f"{self.within or ''}[{key}]"


class _Check:
    """Walks through a value, counting, and stops at the first thing wrong."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._nodes = 0
        self._size = 0

    def visit(self, value: Any, place: _Place | None, depth: int) -> None:
        kind = cast("type[Any]", type(value))
        if kind is str:
            self._count(self._text_size(value, place))
        elif kind is float:
            if not math.isfinite(value):
                raise NotPlainData(f"{_at(place)} is {value}, which JSON cannot hold")
            self._count(len(repr(value)))
        elif kind is int:
            if value.bit_length() > MAX_INT_BITS:
                raise NotPlainData(f"{_at(place)} is a number of more than {MAX_INT_BITS} bits")
            self._count(len(repr(value)))
        elif value is None or kind is bool:
            self._count(5)
        elif isinstance(value, dict | list | tuple):
            self._container(cast("dict[Any, Any] | list[Any]", value), place, depth)
        else:
            raise NotPlainData(f"{_at(place)} is of type {kind.__qualname__}")

    def _container(
        self, value: dict[Any, Any] | list[Any], place: _Place | None, depth: int
    ) -> None:
        if depth > self._limits.depth:
            raise NotPlainData(f"it is nested deeper than {self._limits.depth} levels")
        self._count(2)
        if isinstance(value, dict):
            for key, item in value.items():
                if type(key) is not str:
                    raise NotPlainData(f"{_at(place)} has a key that is {shorten(key)}")
                self._count(self._text_size(key, place))
                self.visit(item, _Place(key, place), depth + 1)
        else:
            for index, item in enumerate(value):
                self.visit(item, _Place(index, place), depth + 1)

    def _count(self, size: int) -> None:
        self._nodes += 1
        self._size += size + 1  # and the comma or colon
        if self._nodes > self._limits.nodes:
            raise NotPlainData(f"it has more than {self._limits.nodes} values")
        if self._size > self._limits.size:
            raise NotPlainData(f"it has more than {self._limits.size} bytes as JSON")

    def _text_size(self, text: str, place: _Place | None) -> int:
        """Return the bytes of a text as JSON, or of a part of it that is too much already."""
        size = 2
        try:
            for at in range(0, len(text), _PIECE):
                size += len(encode_basestring(text[at : at + _PIECE]).encode()) - 2
                if size > self._limits.size:
                    break
        except UnicodeEncodeError:
            raise NotPlainData(f"{_at(place)} has text with half a surrogate pair") from None
        return size


def shorten(value: Any) -> str:
    """Return a short description, fit for a sentence, of a key or name that an op chose."""
    return ascii(value[:60]) if isinstance(value, str) else f"of type {type(value).__qualname__}"


def _at(place: _Place | None) -> str:
    return f"the value at {place}" if place else "it"
