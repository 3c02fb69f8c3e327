"""However an op uses its 8 MiB, they take no more memory or time than the worker can spare."""

import subprocess
import sys

import pytest

from tests.op_io.little_memory import HOSTILE


@pytest.mark.parametrize("name", HOSTILE)
def test_an_output_made_to_take_much_memory_or_time(name: str) -> None:
    command = [sys.executable, "-m", "tests.op_io.little_memory", name]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert HOSTILE[name][1] in ended.stdout
