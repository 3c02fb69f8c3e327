"""The fuzz targets hold for what they begin with, and can fail: each finds a fault made for it."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from pickletools import genops
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gyoza.server.http import connection
from gyoza.worker.logs.demultiplexer import Demultiplexer
from gyoza.worker.logs.masker import Masker
from gyoza.worker.logs.streams import TextStream
from tests.fuzz import http, names, outputs, streams
from tests.fuzz.__main__ import TARGETS, fuzz
from tests.fuzz.target import Target, nothing_executed
from tests.op_io.test_plain_pickle import plain

HERE: dict[str, Target] = {
    "pickles": outputs.PICKLES,
    "outputs": outputs.OUTPUTS,
    "frames": streams.FRAMES,
    "lines": streams.LINES,
    "secrets": streams.SECRETS,
    "ids": names.IDS,
    "http": http.HTTP,
}


def go_through_seeds(target: Target) -> None:
    for seed in target.seeds:
        target.check(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_seeds(name: str) -> None:
    go_through_seeds(HERE[name])


class Forgetful(Masker):
    """Masks every block by itself."""

    def feed(self, data: bytes) -> bytes:
        return super().feed(data) + super().flush()


class Hasty(TextStream):
    """Takes the end of every block for the end of the stream."""

    def feed(self, data: bytes) -> Iterator[Any]:
        yield from super().feed(data)
        yield from super().close()


class Blunt(Demultiplexer):
    """Takes no header that is cut."""

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        yield from super().feed(block)
        self._header = b""


def load_anything(data: bytes, _limits: object) -> Any:
    return pickle.loads(data)


def read_anything(run_dir: Path, limits: object) -> Any:
    return eval((run_dir / "gyoza" / "output").read_bytes(), {"NaN": limits})


def join(work_dir: Path, run_id: str, attempt: int) -> Path:
    return work_dir / f"{run_id}.{attempt}"


def fail(*_args: object, **_kwargs: object) -> None:
    raise LookupError("nobody foresaw this")


FAULTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "pickles": (outputs, "load_plain_pickle", load_anything),
    "outputs": (outputs, "read_outputs", read_anything),
    "frames": (streams, "Demultiplexer", Blunt),
    "lines": (streams, "TextStream", Hasty),
    "secrets": (streams, "Masker", Forgetful),
    "ids": (names, "run_dir", join),
    "http": (connection, "scope_of", fail),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_finds_the_fault_that_it_is_there_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*FAULTS[name])
        with pytest.raises(AssertionError):
            go_through_seeds(HERE[name])
    if name == "http":
        http.end_server()  # it may tell of the fault later, and tests come in any order


@pytest.mark.skipif(find_spec("atheris") is None, reason="there is no atheris for this Python")
@pytest.mark.parametrize(
    ("planted", "budget", "told"),
    [
        ("BREAKS", "-runs=200000", "crash: b'gyoza"),
        ("HANGS", "-timeout=1 -rss_limit_mb=8192", "timeout: b'y"),
        ("GROWS", "-rss_limit_mb=256", "oom: b'y"),
    ],
)
def test_fuzzing_finds_what_was_planted_and_says_the_input(
    planted: str, budget: str, told: str
) -> None:
    answer = fuzz(
        f"tests.fuzz.planted:{planted}", [*budget.split(), "-seed=1", "-max_total_time=60"]
    )
    assert told in answer


def test_an_unknown_target_is_answered_with_those_there_are() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "pickle"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "no such target: pickle; there are pickles, outputs" in ended.stderr


def test_whatever_is_executed_while_nothing_should_be_is_noticed() -> None:
    with pytest.raises(AssertionError, match="compile"), nothing_executed():
        eval("1")


def steps_of(data: bytes) -> list[bytes]:
    places = [place for _, _, place in genops(data) if place is not None]
    return [data[a:b] for a, b in zip(places, [*places[1:], len(data)], strict=True)]


@settings(max_examples=500, deadline=None, database=None)
@given(plain, plain, st.integers(0, pickle.HIGHEST_PROTOCOL), st.data())
def test_a_pickle_whose_steps_are_mixed_with_anothers_is_refused_or_means_what_pickle_says(
    one: Any, other: Any, protocol: int, data: st.DataObject
) -> None:
    steps, others = (steps_of(pickle.dumps(value, protocol)) for value in (one, other))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(steps) - 1))
        match data.draw(st.sampled_from(["drop", "double", "swap", "take"])):
            case "drop":
                del steps[at : at + 1]
            case "double":
                steps.insert(at, steps[at])
            case "swap":
                steps[at], steps[-at] = steps[-at], steps[at]
            case _:
                steps.insert(at, data.draw(st.sampled_from(others)))
        if not steps:
            break
    outputs.check_pickle(b"".join(steps))
