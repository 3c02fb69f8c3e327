"""Capacities, as pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.models import MIG_TAG, Constraints
from gyoza.server.scheduler import Capacity, Needs

GPUS = [{"id": n, "vram_mb": 100 * (n + 1), "tags": ["cuda"]} for n in range(3)]


def idle(**resources: object) -> Capacity:
    return Capacity.of_worker(resources, [])


def test_held_runs_have_their_gpus_to_themselves() -> None:
    held = [Constraints(vram_mb=150), Constraints(vram_mb=1)]
    capacity = Capacity.of_worker({"gpus": GPUS}, ["a"]).less(held)
    assert capacity.gpus == {2: 300}
    assert capacity.tags == {"a", "cuda"}


def test_parts_of_gpus_do_not_add_up() -> None:
    parts = [{"id": 100 + n, "vram_mb": 50, "tags": ["cuda", MIG_TAG]} for n in range(3)]
    capacity = idle(gpus=parts).less([Constraints(vram_mb=50)])
    assert not capacity.reserve(Constraints(vram_mb=51))
    assert capacity.reserve(Constraints(vram_mb=50))
    assert capacity.gpus == {102: 50}


def test_a_run_that_holds_more_than_there_is_leaves_nothing() -> None:
    capacity = idle(cpu_cores=2, gpus=GPUS).less([Constraints(3, 10, 9999)])
    assert (capacity.cpu, capacity.ram_mb, capacity.gpus) == (-1, -10, {})
    assert capacity.reserve(Constraints())
    assert not capacity.reserve(Constraints(cpu=1))


def test_parts_of_cores_add_up() -> None:
    capacity = idle(cpu_cores=1)
    assert capacity.reserve(Constraints(cpu=0.5))
    assert not capacity.reserve(Constraints(cpu=0.75))
    assert capacity.reserve(Constraints(cpu=0.5))


@pytest.mark.parametrize(
    "need", [Constraints(cpu=3), Constraints(ram_mb=11), Constraints(1, 1, 601)]
)
def test_what_does_not_fit_takes_nothing(need: Constraints) -> None:
    capacity = idle(cpu_cores=2, ram_mb=10, gpus=GPUS)
    assert not capacity.reserve(need)
    assert capacity == idle(cpu_cores=2, ram_mb=10, gpus=GPUS)


def test_a_run_needs_all_its_tags() -> None:
    capacity = Capacity.of_worker({"gpus": GPUS}, ["a"])
    assert capacity.fits(Needs(Constraints(), frozenset({"a", "cuda"})))
    assert not capacity.fits(Needs(Constraints(), frozenset({"a", "b"})))
    limited = capacity.limited_to(lambda tag: tag != "cuda")
    assert not limited.fits(Needs(Constraints(), frozenset({"cuda"})))


@pytest.mark.parametrize(
    ("kept", "need", "spares"),
    [
        (Constraints(cpu=3), Constraints(cpu=0.1), False),
        (Constraints(cpu=3), Constraints(ram_mb=5), True),
        (Constraints(cpu=3), Constraints(), True),
        (Constraints(cpu=3, ram_mb=6), Constraints(ram_mb=5), False),
        (Constraints(vram_mb=601), Constraints(vram_mb=1), False),
        (Constraints(cpu=3, vram_mb=301), Constraints(vram_mb=300), False),
        (Constraints(cpu=3, vram_mb=301), Constraints(cpu=0.1), False),
        (Constraints(cpu=3, vram_mb=300), Constraints(vram_mb=100), True),
    ],
)
def test_what_is_kept_for_a_run_is_what_it_lacks_and_what_it_has(
    kept: Constraints, need: Constraints, spares: bool
) -> None:
    capacity = idle(cpu_cores=2, ram_mb=10, gpus=GPUS)
    assert capacity.spares(kept, need) is spares


def test_the_nearer_a_worker_is_to_room_the_less_it_lacks() -> None:
    need = Constraints(cpu=4, ram_mb=8, vram_mb=100)
    half, none, both = (idle(cpu_cores=cpu, ram_mb=8, gpus=GPUS) for cpu in (2, 0, 4))
    without_gpu = idle(cpu_cores=4, ram_mb=8)
    shortages = [one.shortage(need) for one in (both, half, without_gpu, none)]
    assert shortages == sorted(shortages)
    assert shortages[0] == 0 < shortages[1]


AMOUNTS = st.floats(0, 10**6, allow_nan=False)


@given(st.sets(st.text()), AMOUNTS, AMOUNTS, st.dictionaries(st.integers(0, 9), st.integers(0, 99)))
def test_a_capacity_is_read_as_it_was_written(
    tags: set[str], cpu: float, ram_mb: float, gpus: dict[int, int]
) -> None:
    capacity = Capacity(frozenset(tags), cpu, ram_mb, gpus, frozenset(list(gpus)[:1]))
    assert Capacity.from_text(capacity.to_text()) == capacity
