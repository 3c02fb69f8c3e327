"""The figures as a table for people."""

import statistics

from rich.table import Table

from tests.benchmarks.figures import Figure


def table_of(figures: list[Figure]) -> Table:
    """Return the table; every row says what it took, what the floor took, and the goal."""
    table = Table(title="gyoza beside the floor (medians, spread in brackets)")
    for column in ("benchmark", "gyoza", "floor", "distance", "goal", ""):
        right = column in ("gyoza", "floor", "distance")
        table.add_column(column, justify="right" if right else "left")
    for figure in figures:
        table.add_row(
            f"{figure.name} {figure.case}".strip(),
            f"{_with_spread(figure.ours)} {figure.unit}",
            f"{_with_spread(figure.floor)} {figure.unit}" if figure.floor else "",
            _distance(figure),
            figure.goal.words(figure.unit, has_floor=bool(figure.floor)),
            "met" if figure.met else "[bold red]MISSED[/]",
        )
    return table


def notes_of(figures: list[Figure]) -> list[str]:
    """Return what the reader should know, a line for each figure that has something."""
    noted = (figure for figure in figures if figure.note)
    return [f"{figure.name} {figure.case}: {figure.note}" for figure in noted]


def _distance(figure: Figure) -> str:
    if not figure.floor:
        return ""
    if figure.goal.plus:
        return f"{figure.median - figure.floor_median:+.3g} {figure.unit}"
    return f"{figure.median / figure.floor_median:.2f} x"


def _with_spread(taken: list[float]) -> str:
    ordered = sorted(taken)
    middle = statistics.median(ordered)
    return f"{middle:.4g} ({ordered[0]:.3g}-{ordered[-1]:.3g})"
