"""Helper for ops in Python: reads the inputs, sends events, writes the outputs.

One file that needs nothing but Python 3.8 or newer: copy it into an image, under any name, or
install gyoza there. A whole op:

    from gyoza.op import op, progress

    @op
    def count(path, least=1):
        ...
        progress(50)
        ...
        return {"words": 7}

Run outside a container, it takes the inputs as JSON from its first argument or from standard input
and prints the outputs: `python count.py '{"path": "README.md"}'`.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import pickle
import sys
import threading
import traceback
from typing import Any, Callable, NoReturn, TypeVar, cast  # noqa: UP035  (Python 3.8)

EVENT_PREFIX = "::gyoza::"
MAX_DEPTH = 64
MAX_INT_BITS = 1024
"""What the worker takes as outputs: lists and dicts within each other, and the size of an int."""

_Function = TypeVar("_Function", bound="Callable[..., Any]")
_stdout_lock = threading.Lock()


def inputs() -> dict[str, Any]:
    """Return the inputs of this run.

    Raises:
        ValueError: If they are not a JSON object, which only happens outside a container.
    """
    if path := os.environ.get("GYOZA_INPUT_JSON_PATH"):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    if path := os.environ.get("GYOZA_INPUT_PATH"):
        with open(path, "rb") as file:
            return pickle.load(file)
    given = json.loads((sys.argv[1] if len(sys.argv) > 1 else _stdin()).strip() or "{}")
    if not isinstance(given, dict):
        raise ValueError('the inputs must be a JSON object, such as {"path": "README.md"}')
    return cast("dict[str, Any]", given)


@functools.lru_cache(maxsize=None)  # noqa: UP033  (Python 3.8)
def _stdin() -> str:
    return "" if sys.stdin.isatty() else sys.stdin.read()


def progress(percent: float) -> None:
    """Tell how far the run is, 0 to 100; what is outside is cut off."""
    _send("PROGRESS", int(min(max(0, percent), 100)), {})


def info(msg: str, /, **payload: Any) -> None:
    """Send a message, with any plain data, to the events of the run."""
    _send("INFO", str(msg), payload)


def error(msg: str, /, **payload: Any) -> None:
    """Send an error message to the events of the run; the run goes on."""
    _send("ERROR", str(msg), payload)


def outputs(values: dict[str, Any]) -> None:
    """Write the outputs of this run, in place of those written before.

    Args:
        values: Plain data: None, bool, int, float, str, list, tuple, dict with string keys.

    Raises:
        TypeError: If it is not plain data; names the key.
    """
    if not isinstance(cast("Any", values), dict):
        raise TypeError(f"outputs must be a dict, not {type(values).__name__}")
    _check("outputs", values, 1)
    path = os.environ.get("GYOZA_OUTPUT_PATH")
    if not path:
        _print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    # The worker sees all of it or nothing, and may run as another user.
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(json.dumps(values))
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def op(function: _Function) -> _Function:
    """Turn a function into the main program of its module: `main` when that is what runs.

    The module's other functions must be above it. Imported elsewhere, it stays as it is.
    """
    if function.__module__ == "__main__":
        main(function)
    return function


def main(function: Callable[..., dict[str, Any] | None]) -> NoReturn:
    """Call the function with the inputs as keyword arguments, write what it returns, and exit.

    Exits with 0. If the inputs do not fit or the function raises, sends an ERROR event and exits
    with 1; an exception's traceback goes to standard error.
    """
    try:
        arguments = inspect.signature(function).bind(**inputs())
    except (TypeError, ValueError) as problem:
        sentence = f"The inputs do not fit: {problem}."
        sys.stderr.write(sentence + "\n")
        error(sentence)
        sys.exit(1)
    try:
        result = function(*arguments.args, **arguments.kwargs)
        if result is not None:
            outputs(result)
    except Exception as problem:  # noqa: BLE001  (reported twice, and the exit code tells)
        traceback.print_exc()
        error(f"{type(problem).__name__}: {problem}")
        sys.exit(1)
    sys.exit(0)


def _send(kind: str, msg: str | int, payload: dict[str, Any]) -> None:
    _check("payload", payload, 1)
    # ASCII, so that no character can be cut in two on the way to the worker.
    _print(EVENT_PREFIX + json.dumps({"type": kind, "msg": msg, "payload": payload}))


def _print(text: str) -> None:
    """Write a whole line at once, so that no other thread's output can get into it."""
    with _stdout_lock:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _check(name: str, value: Any, depth: int) -> None:
    """Raise a TypeError that names the first part of `value` that is not plain data."""
    if depth > MAX_DEPTH and isinstance(value, (dict, list, tuple)):
        raise TypeError(f"{name[:100]}... is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in cast("dict[Any, Any]", value).items():
            if not isinstance(key, str):
                raise TypeError(f"{name} has the key {key!r}, and keys must be strings")
            _check(name, key, depth)
            _check(f"{name}[{key!r}]", item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("list[Any]", value)):
            _check(f"{name}[{index}]", item, depth + 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise TypeError(f"{name} has text with half a surrogate pair") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{name} is {value}, which JSON cannot hold")
    elif isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise TypeError(f"{name} is a number of more than {MAX_INT_BITS} bits")
    elif value is not None:
        raise TypeError(
            f"{name} is of type {type(value).__name__}: use None, bool, int, float, str, list, "
            "tuple or dict"
        )
