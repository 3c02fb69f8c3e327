"""Reads what a run is given: `-i key=value`, `--text key=value`, `--inputs FILE`, `--env K=V`."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from gyoza.cli.errors import CliError


def read_inputs(
    file: str | None,
    pairs: list[str],
    texts: list[str],
    types: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the inputs of `file` with the single ones laid over them.

    Args:
        file: A JSON file, `-` for standard input.
        pairs: `key=value`, the value JSON if it parses as that, else text; `key=@file` is the
            text of a file.
        texts: `key=value`, the value text as it is.
        types: The types of inputs that a definition tells: one of type `string` is text as it is.

    Raises:
        CliError: If a file cannot be read, is not a JSON object, or a pair has no `=`.
    """
    inputs = _read_object(file) if file else {}
    for pair in pairs:
        name, value = split_pair(pair, "-i", "n=3")
        if value.startswith("@"):
            inputs[name] = read_text(value[1:])
        else:
            is_text = types is not None and types.get(name) == "string"
            inputs[name] = value if is_text else _parse(value)
    return inputs | dict(split_pair(pair, "--text", "version=1.10") for pair in texts)


def split_pair(pair: str, option: str, example: str) -> tuple[str, str]:
    """Split `key=value`.

    Raises:
        CliError: If there is no key or no `=`.
    """
    name, equals, value = pair.partition("=")
    if not name or not equals:
        raise CliError(f"{option} takes key=value, as in {option} {example}, not {pair!r}.")
    return name, value


def check_json(what: str, value: Any) -> None:
    """Check that plain data can be sent.

    Raises:
        CliError: If it has numbers, text or values that JSON has not, such as a date from YAML.
    """
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CliError(f"{what} cannot be sent as JSON: {error}.") from None


def read_text(file: str) -> str:
    """Return the UTF-8 text of a file, or of standard input for `-`.

    Raises:
        CliError: If it cannot be read.
    """
    try:
        if file == "-":
            return sys.stdin.read()
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CliError(f"The file {file} is not UTF-8 text.") from None
    except OSError as error:
        raise CliError(f"The file {file} cannot be read: {error.strerror or error}.") from error


def _read_object(file: str) -> dict[str, Any]:
    where = "standard input" if file == "-" else f"the file {file}"
    try:
        value = _loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise CliError(f"The inputs in {where} are not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise CliError(f"The inputs in {where} must be a JSON object of names and values.")
    return cast("dict[str, Any]", value)


def _parse(value: str) -> Any:
    try:
        return _loads(value)
    except (ValueError, RecursionError):
        return value


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)


def _finite(text: str) -> float:
    """Return a number that JSON can hold; 12e4567 is none, and rather a name."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
