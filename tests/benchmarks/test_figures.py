"""When a goal counts as met, and how the two sides of a figure take turns."""

from collections.abc import Awaitable, Callable

import pytest

from tests.benchmarks.figures import Figure, Goal, alternate
from tests.benchmarks.table import table_of


@pytest.mark.parametrize(
    ("goal", "ours", "floor", "met"),
    [
        (Goal(times=1.1), [109, 500, 1], [100, 100, 1], True),
        (Goal(times=1.1), [111, 500, 1], [100, 100, 1], False),
        (Goal(plus=40), [139], [100], True),
        (Goal(plus=40), [141], [100], False),
        (Goal(times=0.95, more_is_better=True), [96], [100], True),
        (Goal(times=0.95, more_is_better=True), [94], [100], False),
        (Goal(plus=60), [59], [], True),
        (Goal(plus=60), [61], [], False),
    ],
)
def test_the_median_meets_the_goal_or_not(
    goal: Goal, ours: list[float], floor: list[float], met: bool
) -> None:
    figure = Figure("x", "ms", goal, ours, floor)
    assert figure.met is met
    assert figure.to_dict()["met"] is met
    assert table_of([figure]).row_count == 1


async def test_both_sides_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def measure(side: str) -> Callable[[], Awaitable[float]]:
        async def count() -> float:
            order.append(side)
            return float(order.count(side))

        return count

    taken = await alternate(measure("ours"), measure("floor"), rounds=3)
    assert taken == ([2, 3, 4], [2, 3, 4])
    assert order == ["ours", "floor", "floor", "ours", "ours", "floor", "floor", "ours"]
