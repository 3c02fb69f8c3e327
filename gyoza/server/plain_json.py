"""Reading bodies as the JSON of the standard: what could not be stored or sent back is refused.

A body is read once, whoever asks for it. A small one is read where it is asked for, a large one in
a thread; one of many values by Python code, as C code would keep the interpreter to itself (see
`gyoza.server.json_text`), and only a few such bodies are in memory at a time.
"""

import json
import math
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from json.decoder import JSONArray, JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any, NoReturn, cast

import trio
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Scope

from gyoza.models.limits import DEPTH, VALUES
from gyoza.server.json_text import MANY, JsonText, write_text

LARGE_BYTES = 64 * 1024
"""Bytes of a body from which on it is read in a thread."""

_Scan = Callable[[str, int], tuple[Any, int]]

_BODY = "gyoza.body"
"""Where the scope of a request keeps its body."""


class TooManyValues(HTTPException):
    """The body holds more values than a body may."""

    def __init__(self) -> None:
        super().__init__(413, f"The body holds more than {VALUES} values.")


class JsonBody:
    """The body of one request.

    Args:
        data: The bytes that came.
        places: Places for bodies of many values; one has its place until its request is answered.
    """

    def __init__(self, data: bytes, places: trio.Semaphore) -> None:
        self._data = data
        self._places = places
        self._has_place = False
        self._many = False
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
        if len(self._data) < LARGE_BYTES:
            return _outcome(self._data, many=False)
        self._many = await trio.to_thread.run_sync(_count, self._data) > MANY
        if self._many:
            await self._places.acquire()
            self._has_place = True
        return await trio.to_thread.run_sync(partial(_outcome, self._data, many=self._many))

    async def texts_of(self, *values: Any) -> list[JsonText]:
        """Return parts of this body as JSON again, for the database."""
        write = partial(write_text, many=self._many)
        if len(self._data) < LARGE_BYTES:
            return [write(value) for value in values]
        return await trio.to_thread.run_sync(lambda: [write(value) for value in values])

    def close(self) -> None:
        """Leave the place to another body."""
        if self._has_place:
            self._places.release()


@contextmanager
def reading_body(scope: Scope, data: bytes, places: trio.Semaphore) -> Generator[JsonBody]:
    """Give a request its body, until it is answered."""
    body = scope[_BODY] = JsonBody(data, places)
    try:
        yield body
    finally:
        body.close()


def body_of(request: Request) -> JsonBody:
    """Return the body of a request."""
    return cast("JsonBody", request.scope[_BODY])


class PlainJsonRequest(Request):
    """A request whose JSON holds no NaN, no infinity, no half characters and no endless nesting."""

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


def _outcome(data: bytes, *, many: bool) -> Callable[[], Any]:
    """Return what returns the value of a body, or raises what is wrong with it."""
    try:
        value = parse(data, many=many)
    except (json.JSONDecodeError, TooManyValues) as error:
        return partial(_raise, error)
    return lambda: value


def _raise(error: Exception) -> NoReturn:
    raise error


def parse(data: bytes, *, many: bool = False) -> Any:
    """Parse JSON strictly.

    Args:
        data: The JSON.
        many: Whether it may hold more values than C code is to read in one go.

    Raises:
        json.JSONDecodeError: If it is not plain JSON.
        TooManyValues: If it holds too many values.
    """
    try:
        reader = _CountingDecoder() if many else _DECODER
        value = reader.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
        _check(value, 0)
    except json.JSONDecodeError:
        raise
    except UnicodeError as error:
        raise json.JSONDecodeError("text is not valid Unicode", "", 0) from error
    except RecursionError as error:
        raise json.JSONDecodeError("values are nested too deeply", "", 0) from error
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


class _CountingDecoder(json.JSONDecoder):
    """The decoder in Python, which gives up at a value too many."""

    def __init__(self) -> None:
        super().__init__(parse_constant=_refuse_constant)
        self._left = VALUES
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


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH:
        raise RecursionError
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is too large")
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for name, item in cast("dict[str, Any]", value).items():
            name.encode()
            _check(item, depth + 1)
