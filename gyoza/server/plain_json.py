"""Reading bodies as the JSON of the standard: what could not be stored or sent back is refused.

A body is read once, whoever asks for it. A small one is read where it is asked for; a large one in
a thread, by Python code, as C code would keep the interpreter to itself (see
`gyoza.server.json_text`). Of those that hold many values only a few are in memory at a time.
"""

import hashlib
import json
import math
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from json.decoder import JSONArray, JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any, NoReturn, TypeVar, cast

import trio
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Scope

from gyoza.models.limits import BODY_FIELDS, DEPTH, SMALL_BODY_BYTES, VALUES
from gyoza.server.json_text import JsonText, write_text
from gyoza.server.places import Places

LARGE_BYTES = 64 * 1024
"""Bytes of a body from which on it is read in a thread."""

MANY = 20_000
"""Values beyond which a body is one of a few."""

T = TypeVar("T")
_Scan = Callable[[str, int], tuple[Any, int]]

_BODY = "gyoza.body"
"""Where the scope of a request keeps its body."""


class TooManyValues(HTTPException):
    """The body holds more values than a body may."""

    def __init__(self) -> None:
        super().__init__(413, f"The body holds more than {VALUES} values.")


class Bodies:
    """What the bodies of a server share.

    Args:
        many: How many of those of many values may be in memory at a time.
    """

    def __init__(self, many: int) -> None:
        self.places = Places(many)
        # One after the other: each of them keeps the interpreter to itself now and then. What is
        # no larger than a heartbeat waits for none of them.
        self.large = trio.CapacityLimiter(1)
        self.others = trio.CapacityLimiter(8)


class JsonBody:
    """The body of one request.

    Args:
        data: The bytes that came.
        bodies: Shared with the other ones.
        key_id: The key that it came with.

    Attributes:
        data: The same, until the request is answered.
    """

    def __init__(self, data: bytes, bodies: Bodies, key_id: str) -> None:
        self.data = data
        self._key_id = key_id
        self._places = bodies.places
        self._limiter = bodies.large if len(data) > SMALL_BODY_BYTES else bodies.others
        self._has_place = False
        self._large = len(data) >= LARGE_BYTES
        self._read: Callable[[], Any] | None = None

    async def value(self) -> Any:
        """Return the parsed body.

        Raises:
            json.JSONDecodeError: If it is not plain JSON; FastAPI answers 422.
            TooManyValues: If it holds too many.
        """
        if self._read is None:
            self._read = await self._parse()
        return self._read()

    async def _parse(self) -> Callable[[], Any]:
        if not self._large:
            return _outcome(self.data)
        if await self._in_thread(partial(_count, self.data)) > MANY:
            await self._places.acquire(self._key_id)
            self._has_place = True
        return await self._in_thread(partial(_outcome, self.data, large=True))

    async def digest(self, what: str) -> bytes:
        """Return the SHA-256 of this body and of what is asked for with it."""
        value = await self.value()

        def calculate() -> bytes:
            # What is small may be written in another order; what is large is the same bytes.
            small = not self._large
            data = json.dumps(value, sort_keys=True).encode() if small else self.data
            return hashlib.sha256(b"%b %b" % (what.encode(), data)).digest()

        return await self._in_thread(calculate) if self._large else calculate()

    async def texts_of(self, *values: Any) -> list[JsonText]:
        """Return parts of this body as JSON again, for the database."""

        def write() -> list[JsonText]:
            return [write_text(value, large=self._large) for value in values]

        return await self._in_thread(write) if self._large else write()

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(function, limiter=self._limiter)

    def close(self) -> None:
        """Let go of it, and leave its place to another one."""
        self.data = b""
        self._read = None
        if self._has_place:
            self._places.release(self._key_id)


@contextmanager
def reading_body(scope: Scope, data: bytes, bodies: Bodies, key_id: str) -> Generator[JsonBody]:
    """Give a request its body, until it is answered."""
    body = scope[_BODY] = JsonBody(data, bodies, key_id)
    try:
        yield body
    finally:
        body.close()


def body_of(request: Request) -> JsonBody:
    """Return the body of a request."""
    return cast("JsonBody", request.scope[_BODY])


class PlainJsonRequest(Request):
    """A request whose JSON holds no NaN, no infinity, no half characters and no endless nesting."""

    async def body(self) -> bytes:
        """Return what tells FastAPI whether there is a body.

        It keeps what it gets here for as long as an error that it raised, which is for long.
        """
        return b"{}" if body_of(self).data else b""

    async def json(self) -> Any:
        """Return the parsed body, or raise as `JsonBody.value`."""
        return await body_of(self).value()


class PlainJsonRoute(APIRoute):
    """A route that reads its body by `PlainJsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind the other reader."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(PlainJsonRequest(request.scope, request.receive))

        return handle


def _count(data: bytes) -> int:
    """Return how many values a body has at most: those of lists and objects, and their names."""
    return sum(map(data.count, (b",", b":", b"[", b"{")))


def _outcome(data: bytes, *, large: bool = False) -> Callable[[], Any]:
    """Return what returns the value of a body, or raises what is wrong with it.

    An error that was raised holds on to all that was there when it was, the body among it.
    """
    try:
        value = parse(data, large=large)
    except json.JSONDecodeError as error:
        return partial(_raise, json.JSONDecodeError, error.msg, "", error.pos)
    except TooManyValues:
        return partial(_raise, TooManyValues)
    return lambda: value


def _raise(kind: Callable[..., Exception], *arguments: Any) -> NoReturn:
    raise kind(*arguments)


def parse(data: bytes, *, large: bool = False) -> Any:
    """Parse JSON strictly.

    Args:
        data: The JSON.
        large: Whether C code is not to read it in one go.

    Raises:
        json.JSONDecodeError: If it is not plain JSON.
        TooManyValues: If it holds too many values.
    """
    try:
        reader = _CountingDecoder() if large else _DECODER
        value = reader.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
        _check(value, 0)
        if isinstance(value, dict) and len(cast("dict[str, Any]", value)) > BODY_FIELDS:
            raise ValueError(f"it has more than {BODY_FIELDS} fields")
    except json.JSONDecodeError:
        raise
    except UnicodeError as error:
        raise json.JSONDecodeError("text is not valid Unicode", "", 0) from error
    except RecursionError as error:
        raise json.JSONDecodeError("values are nested too deeply", "", 0) from error
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from error
    return cast("Any", value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


class _CountingDecoder(json.JSONDecoder):
    """The decoder in Python, which gives up at a value too many."""

    def __init__(self) -> None:
        super().__init__(parse_constant=_refuse_constant, object_pairs_hook=_to_dict)
        self._left = VALUES + BODY_FIELDS  # with what is around the inputs or outputs
        self._scan: _Scan | None = None
        self.parse_object = self._object
        self.parse_array = self._array
        self.scan_once = cast("_Scan", py_make_scanner(self))

    def _object(self, begun: Any, strict: bool, scan: Any, *more: Any) -> Any:
        self._scan = scan
        return cast("Any", JSONObject)(begun, strict, self._counted, *more)

    def _array(self, begun: Any, scan: Any) -> Any:
        self._scan = scan
        return cast("Any", JSONArray)(begun, self._counted)

    def _counted(self, text: str, at: int) -> tuple[Any, int]:
        self._left -= 1
        if self._left < 0:
            raise TooManyValues
        return cast("_Scan", self._scan)(text, at)


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its fields, which are freed one by one."""
    fields: dict[str, Any] = {}
    pairs.reverse()
    while pairs:
        name, value = pairs.pop()
        fields[name] = value
    return fields


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH:
        raise RecursionError
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is too large")
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for name, item in cast("dict[str, Any]", value).items():
            _check_text(name)
            _check(item, depth + 1)


def _check_text(text: str) -> None:
    if not text.isascii():  # which costs nothing to know
        text.encode()
