"""Writes the inputs of a run where its container reads them."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

from gyoza.worker.errors import InputsInvalid
from gyoza.worker.op_io.op_dir import INPUT_JSON, INPUT_PICKLE, mounted_dir
from gyoza.worker.op_io.plain_data import Limits, NotPlainData, plain_copy

_PROTOCOL = 4
"""Read by Python 3.4 and newer, whatever the image has."""


def write_inputs(run_dir: Path, inputs: dict[str, Any], limits: Limits | None = None) -> None:
    """Write the inputs as a pickle of plain data and as UTF-8 JSON, readable by any user.

    Args:
        run_dir: The run directory, in which `make_op_dir` has just made the folder.
        inputs: Plain data; tuples arrive as lists.
        limits: The caps; see `Limits`.

    Raises:
        InputsInvalid: If they are not plain data within the caps.
        OSError: If the files cannot be written.
    """
    try:
        plain = plain_copy(inputs, limits or Limits())
    except NotPlainData as error:
        raise InputsInvalid(
            f"The inputs are not plain data: {error}. Give null, bool, int, float, str, list and "
            "dict with string keys only."
        ) from error
    _write(mounted_dir(run_dir) / INPUT_PICKLE, pickle.dumps(plain, protocol=_PROTOCOL))
    _write(mounted_dir(run_dir) / INPUT_JSON, json.dumps(plain, ensure_ascii=False).encode())


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o644)  # whatever the umask is
        file.write(data)
