"""Reads what an op has left as its outputs, trusting nothing of it."""

import json
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, cast

from gyoza.worker.errors import OutputInvalid
from gyoza.worker.op_io.op_dir import OUTPUT, mounted_dir
from gyoza.worker.op_io.plain_data import Limits, NotPlainData, check_plain
from gyoza.worker.op_io.plain_pickle import load_plain_pickle

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a FIFO without O_NONBLOCK would wait for somebody to write into it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# How pickles begin (protocols 2 and up, then 0 and 1) and JSON never does.
_PICKLE_STARTS = (b"\x80", b"(", b"}")
# What stands before each value and key but the first, and all that lies before it. It matches
# anywhere and never goes back, so that no text takes longer than its length.
_BEFORE_VALUE = re.compile(
    r"""
    (?: [^"\[{,:]++                         # numbers, white space, closing brackets
      | "(?:[^"\\]++|\\.)*+"?               # a string
      | [\[{](?=[\ \t\r\n]*+[\]}])         # the beginning of an empty list or dict
    )*+
    (?: [\[{,:] | \Z )""",
    re.DOTALL | re.VERBOSE,
)


def read_outputs(run_dir: Path, name: str = OUTPUT, limits: Limits | None = None) -> dict[str, Any]:
    """Return the outputs of an op whose container is dead.

    Args:
        run_dir: The run directory.
        name: The file's name in the mounted folder.
        limits: The caps; see `Limits`.

    Returns:
        Plain data with tuples as lists, fit for JSON; `{}` if there is no file.

    Raises:
        OutputInvalid: If the file is anything but plain data within the caps.
    """
    limits = limits or Limits()
    try:
        data = _read(run_dir, name, limits.size)
        outputs: Any = {} if data is None else _decode(data, limits)
    except NotPlainData as error:
        raise OutputInvalid(
            f"The op's output is not plain data: {error}. Write null, bool, int, float, str, list "
            "and dict with string keys only."
        ) from error
    except OSError as error:
        raise OutputInvalid(
            f"The op's output cannot be read ({error.strerror}): write a regular file with mode "
            "0644 to GYOZA_OUTPUT_PATH."
        ) from error
    if not isinstance(outputs, dict):
        raise OutputInvalid(
            f"The op's output is of type {type(outputs).__name__}: write a dict, with a name for "
            "each output."
        )
    return cast("dict[str, Any]", outputs)


def _read(run_dir: Path, name: str, size: int) -> bytes | None:
    """Return the file's bytes, or None if there is none; never follows a link."""
    with _opened(str(mounted_dir(run_dir)), _DIRECTORY) as folder:
        try:
            # Looked at before it is opened: merely opening a device can have effects.
            _check(os.stat(name, dir_fd=folder, follow_symlinks=False), size)
        except FileNotFoundError:
            return None
        with _opened(name, _FILE, folder) as file:
            _check(os.fstat(file), size)
            with os.fdopen(file, "rb", closefd=False) as reader:
                return reader.read(size + 1)


@contextmanager
def _opened(path: str, flags: int, folder: int | None = None) -> Generator[int]:
    descriptor = os.open(path, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check(found: os.stat_result, size: int) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise OutputInvalid(
            "The op's output is a link or a special file: write a regular file to "
            "GYOZA_OUTPUT_PATH."
        )
    if found.st_size > size:
        raise OutputInvalid(
            f"The op's output has {found.st_size} bytes and may have {size}: write large results "
            "elsewhere and return where they are."
        )


def _decode(data: bytes, limits: Limits) -> Any:
    if data.startswith(_PICKLE_STARTS):
        return load_plain_pickle(data, limits)
    try:
        text = data.decode("utf-8-sig")
        _check_count(text, limits)
        value = json.loads(text, parse_constant=_refuse_constant)
    except NotPlainData:
        raise
    except UnicodeDecodeError as error:
        raise NotPlainData("it is neither a pickle nor UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise NotPlainData(f"it is neither a pickle nor JSON ({error})") from error
    except ValueError as error:  # Python's own limit on the digits of a number
        raise NotPlainData("it holds a number of thousands of digits") from error
    except RecursionError as error:
        raise NotPlainData(f"it is nested deeper than {limits.depth} levels") from error
    check_plain(value, limits)
    return value


def _check_count(text: str, limits: Limits) -> None:
    """Count the values before any is made: two bytes of JSON can become a hundred of memory."""
    found = islice(_BEFORE_VALUE.finditer(text), limits.nodes + 2)
    if sum(match.end() < len(text) for match in found) >= limits.nodes:
        raise NotPlainData(f"it has more than {limits.nodes} values")


def _refuse_constant(name: str) -> NoReturn:
    raise NotPlainData(f"it holds {name}, which is not JSON")
