"""How many runs a worker takes at a time: as many as it has open files for."""

import errno
import logging
import math
import subprocess
import sys
from typing import Any

import pytest

from gyoza import descriptors
from gyoza.worker.runner import slots
from gyoza.worker.runner.main import start
from gyoza.worker.runner.slots import FILES_A_RUN, RESERVE, slots_that_fit

LIMITED = """
import logging, resource, sys
from gyoza import descriptors
logging.basicConfig(level="DEBUG", format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
before = descriptors.free()
print(int(descriptors.raise_limit()), int(descriptors.free() - before))
"""


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be_and_told() -> None:
    program = LIMITED.format(hard=200)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=True
    )
    assert done.stdout.split() == ["200", "136"]
    assert done.stderr.splitlines() == ["Up to 200 files and connections may be open at a time."]


class Limits:
    """Stands in for the module `resource` of a system like macOS."""

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = 2**63 - 1

    def __init__(self) -> None:
        self.soft = 256

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.soft, self.RLIM_INFINITY

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        if limits[0] > 10240:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = limits[0]


def test_a_system_that_allows_less_than_it_says_gives_what_it_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(descriptors, "resource", Limits())
    assert descriptors.raise_limit() == descriptors.allowed() == 10240


def test_a_system_without_limits_has_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(descriptors, "resource", None)
    monkeypatch.setattr(descriptors, "OPEN_HERE", "/no/such/folder")
    with caplog.at_level(logging.DEBUG):
        assert descriptors.raise_limit() == math.inf
    assert descriptors.free() == math.inf
    assert slots_that_fit(10_000) == 10_000
    assert "Any number of files" in caplog.text


@pytest.mark.parametrize(
    ("free", "wanted", "fitting"),
    [
        (RESERVE + 5 * FILES_A_RUN, 5, 5),
        (RESERVE + 5 * FILES_A_RUN, 4, 4),
        (RESERVE + 5 * FILES_A_RUN - 1, 5, 4),
        (RESERVE + 5 * FILES_A_RUN, 200, 5),
        (RESERVE, 200, 1),
        (10, 200, 1),
        (10, 1, 1),
    ],
)
def test_slots_without_files_are_not_used_and_that_is_told(
    free: float,
    wanted: int,
    fitting: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(slots.descriptors, "free", lambda: free)
    assert slots_that_fit(wanted) == fitting
    told = f"Of {wanted} slots only {fitting} are used" in caplog.text
    assert told == (fitting < wanted)


def test_the_documented_entry_raises_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(descriptors, "raise_limit", stop)
    with pytest.raises(KeyboardInterrupt):
        start()


def test_a_process_that_may_not_even_look_may_open_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(descriptors.os, "listdir", refuse)
    assert descriptors.free() == 0
