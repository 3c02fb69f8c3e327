"""Reading bodies as the JSON of the standard: what could not be stored or sent back is refused."""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, cast

import trio
from fastapi import Request, Response
from fastapi.routing import APIRoute

MAX_DEPTH = 100
THREAD_FROM_BYTES = 256 * 1024


class PlainJsonRequest(Request):
    """A request whose JSON holds no NaN, no infinity, no half characters and no endless nesting."""

    async def json(self) -> Any:
        """Return the parsed body.

        Raises:
            json.JSONDecodeError: If it is not such JSON; FastAPI answers 422.
        """
        body = await self.body()
        if len(body) < THREAD_FROM_BYTES:
            return parse(body)
        return await trio.to_thread.run_sync(parse, body)


class PlainJsonRoute(APIRoute):
    """A route that reads its body by `PlainJsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind the other reader."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(PlainJsonRequest(request.scope, request.receive))

        return handle


def parse(body: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        json.JSONDecodeError: If the body is not plain JSON.
    """
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
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


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
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
