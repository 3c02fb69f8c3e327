"""Capacities and choices, as pure functions."""

from dataclasses import dataclass, field

import pytest

from gyoza.models import MIG_TAG, Constraints
from gyoza.server.scheduler import choose_runs, free_capacity


@dataclass(frozen=True)
class Run:
    name: str
    constraints: Constraints = field(default_factory=Constraints)
    tags: list[str] = field(default_factory=list[str])


GPUS = [{"id": n, "vram_mb": 100 * (n + 1), "tags": ["cuda"]} for n in range(3)]


def test_held_runs_have_their_gpus_to_themselves() -> None:
    held = [Constraints(vram_mb=150), Constraints(vram_mb=1)]
    capacity = free_capacity({"gpus": GPUS}, ["a"], held)
    assert capacity.gpus == {2: 300}
    assert capacity.tags == {"a", "cuda"}


def test_parts_of_gpus_do_not_add_up() -> None:
    parts = [{"id": 100 + n, "vram_mb": 50, "tags": ["cuda", MIG_TAG]} for n in range(3)]
    capacity = free_capacity({"gpus": parts}, [], [Constraints(vram_mb=50)])
    assert not capacity.reserve(Constraints(vram_mb=51))
    assert capacity.reserve(Constraints(vram_mb=50))
    assert capacity.gpus == {102: 50}


def test_a_run_that_holds_more_than_there_is_leaves_nothing() -> None:
    capacity = free_capacity({"cpu_cores": 2, "gpus": GPUS}, [], [Constraints(3, 10, 9999)])
    assert (capacity.cpu, capacity.ram_mb, capacity.gpus) == (-1, -10, {})
    assert capacity.reserve(Constraints())
    assert not capacity.reserve(Constraints(cpu=1))


@pytest.mark.parametrize(
    "need", [Constraints(cpu=3), Constraints(ram_mb=11), Constraints(1, 1, 601)]
)
def test_what_does_not_fit_takes_nothing(need: Constraints) -> None:
    resources = {"cpu_cores": 2, "ram_mb": 10, "gpus": GPUS}
    capacity = free_capacity(resources, [], [])
    assert not capacity.reserve(need)
    assert capacity == free_capacity(resources, [], [])


def test_smaller_runs_go_past_a_large_one_that_does_not_fit() -> None:
    waiting = [
        Run("large", Constraints(cpu=3)),
        Run("tagged", tags=["gpu"]),
        Run("first", Constraints(cpu=1)),
        Run("second", Constraints(cpu=1)),
        Run("third", Constraints(cpu=1)),
    ]
    capacity = free_capacity({"cpu_cores": 2}, [], [])
    assert [run.name for run in choose_runs(iter(waiting), capacity, 9)] == ["first", "second"]


@pytest.mark.parametrize(("wanted", "got"), [(-1, 0), (0, 0), (1, 1), (5, 3)])
def test_no_more_are_chosen_than_asked_for(wanted: int, got: int) -> None:
    runs = [Run(f"{n}") for n in range(3)]
    assert len(choose_runs(iter(runs), free_capacity({}, [], []), wanted)) == got
