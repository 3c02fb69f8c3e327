"""The plan of faults, and when processes count as away."""

import math
import random

from tests.chaos.__main__ import GAP_S, QUICK_FAULTS_S
from tests.chaos.faults import PAGES
from tests.chaos.plan import DECK, Planned, Trouble, plan_faults
from tests.chaos.processes import LONGEST_START_S, STARTING_S, Life, away
from tests.chaos.stage import WORKERS

SEED_OF_CI = 13


def drawn(seed: int, budget_s: float = QUICK_FAULTS_S) -> list[Planned]:
    return plan_faults(random.Random(seed), budget_s, WORKERS, GAP_S)


def test_a_seed_means_the_same_again() -> None:
    assert drawn(7) == drawn(7) != drawn(8)


def test_a_deck_holds_every_fault() -> None:
    assert set(DECK) == set(Trouble)
    cards = sum(count for count, _, _ in DECK.values())
    deck = drawn(1, 1_000.0)[:cards]
    for trouble, (count, least, most) in DECK.items():
        found = [fault for fault in deck if fault.trouble is trouble]
        assert len(found) == count
        assert all(least <= fault.lasts_s <= most or fault.lasts_s == 60.0 for fault in found)


def test_every_fault_comes_in_the_run_of_ci() -> None:
    assert {fault.trouble for fault in drawn(SEED_OF_CI)} == set(Trouble)


def test_every_answer_has_its_page() -> None:
    assert set(PAGES) == {trouble for trouble in Trouble if "answered" in trouble}


def test_a_program_is_away_between_its_processes_and_while_it_starts() -> None:
    lives = [Life(1, 100.0, 200.0), Life(2, 203.0)]
    assert away(lives, [101.0, 150.0, 204.0]) == [
        (0.0, 100.0 + STARTING_S),
        (200.0, 203.0 + STARTING_S),
    ]


def test_a_program_has_started_when_it_first_calls_and_not_much_later() -> None:
    assert away([Life(1, 100.0)], [112.0]) == [(0.0, 112.0)]
    assert away([Life(1, 100.0)], []) == [(0.0, 100.0 + LONGEST_START_S)]


def test_a_program_that_has_not_been_started_is_not_excused() -> None:
    assert away([], []) == []
    assert away([Life(1, 100.0)], [100.5])[-1][1] < math.inf
