"""Figures and goals: what gyoza takes, beside the floor measured in the same run."""

import statistics
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

ROUNDS = 5
"""Least measurements of each side."""


@dataclass(frozen=True)
class Goal:
    """What the median must reach: `times` and `plus` bound gyoza's figure from above.

    Attributes:
        times: Factor on the floor.
        plus: Added to it, in the figure's unit; without a floor, the bound itself.
        more_is_better: The bound is from below, as for rates.
    """

    times: float = 1.0
    plus: float = 0.0
    more_is_better: bool = False

    def bound(self, floor: float) -> float:
        """Return what gyoza's figure must reach, given the floor's."""
        return floor * self.times + self.plus

    def words(self, unit: str, *, has_floor: bool) -> str:
        """Return the goal as people read it."""
        sign = "≥" if self.more_is_better else "≤"
        if not has_floor:
            return f"{sign} {self.plus:g} {unit}"
        if self.plus:
            return f"{sign} floor + {self.plus:g} {unit}"
        return f"{sign} {self.times:g} x"


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        name: The benchmark.
        case: Which of its cases; empty if it has one.
        unit: Of all numbers.
        ours: What gyoza took, each beside a measurement of the floor.
        floor: What the floor took; empty if there is none.
        size: The load, for benchmarks that show how the cost grows with it.
        note: What the reader should know.
        series: What a process held in the course of time, where that is what matters.
        every_s: Seconds between two of the series.
    """

    name: str
    unit: str
    goal: Goal
    ours: list[float]
    floor: list[float] = field(default_factory=list[float])
    case: str = ""
    size: float | None = None
    note: str = ""
    series: list[float] = field(default_factory=list[float])
    every_s: float = 0.0

    @property
    def median(self) -> float:
        """Gyoza's median."""
        return statistics.median(self.ours)

    @property
    def floor_median(self) -> float:
        """The floor's median; 0 without a floor."""
        return statistics.median(self.floor) if self.floor else 0.0

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        bound = self.goal.bound(self.floor_median)
        return self.median >= bound if self.goal.more_is_better else self.median <= bound

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON data, with what follows from its measurements."""
        return asdict(self) | {
            "median": self.median,
            "floor_median": self.floor_median,
            "met": self.met,
        }


Measure = Callable[[], Awaitable[float]]


async def alternate(
    ours: Measure, floor: Measure, rounds: int = ROUNDS
) -> tuple[list[float], list[float]]:
    """Measure both in turn, so that what else the machine does meets both alike.

    Each is measured once before it counts: caches fill, connections open.

    Returns:
        Gyoza's figures and the floor's.
    """
    taken: dict[Measure, list[float]] = {ours: [], floor: []}
    for number in range(rounds + 1):
        for measure in (floor, ours) if number % 2 else (ours, floor):
            figure = await measure()
            if number:
                taken[measure].append(figure)
    return taken[ours], taken[floor]
