"""Plots of results that `just bench --json FILE` wrote: cost against size, and what a soak held.

`python -m tests.benchmarks.plots FOLDER FILE...`: an SVG for each benchmark that has some.
"""

import argparse
import importlib
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

Row = dict[str, Any]
AXES = {
    "throughput": "runs at a time",
    "memory": "containers that sleep",
    "fleet": "runs in all, by 1,000 workers",
    "backlog": "runs that wait, beside 1,000,000 that have ended",
}
OURS, FLOOR = "#c2410c", "#64748b"


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(prog="just plots")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    given = parser.parse_args()
    rows: dict[str, list[Row]] = defaultdict(list)
    for file in given.files:
        for row in json.loads(file.read_text())["figures"]:
            rows[row["name"]].append(row)
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, axis in AXES.items():
        if sized := [row for row in rows[name] if row["size"] is not None]:
            _draw(given.folder / f"{name}.svg", _by_unit(sized), axis)
    if timed := [row for row in rows["soak"] if row["series"]]:
        _draw(given.folder / "soak.svg", _by_unit(timed), "minutes")


def _by_unit(rows: list[Row]) -> dict[str, list[Row]]:
    panels: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        panels[row["unit"]].append(row)
    return panels


def _draw(path: Path, panels: dict[str, list[Row]], axis: str) -> None:
    """Draw a panel for each unit, side by side."""
    # Loaded here, and without its types: only who draws needs it.
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    pyplot.rcParams.update({"svg.hashsalt": "gyoza", "font.size": 9, "axes.grid": True})
    width = 3.4 * len(panels) + 1.2
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=(width, 3), squeeze=False)
    for axes, (unit, rows) in zip(all_axes[0], panels.items(), strict=True):
        if rows[0]["series"]:
            _draw_series(axes, rows)
        else:
            _draw_sizes(axes, rows)
        axes.set(xlabel=axis, ylabel=unit, ylim=(0, None))
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw_series(axes: Any, rows: list[Row]) -> None:
    for row in rows:
        minutes = [number * row["every_s"] / 60 for number in range(len(row["series"]))]
        axes.plot(minutes, row["series"], label=row["case"], linewidth=1)


def _draw_sizes(axes: Any, rows: list[Row]) -> None:
    """Draw medians against size, with the spread, of ours and the floor."""
    costs: dict[str, list[Row]] = defaultdict(list)
    for row in rows:  # "server CPU of 100 runs" and "at 16" are cases of one cost each
        costs[row["case"].partition(" of ")[0] if " of " in row["case"] else "gyoza"].append(row)
    for number, (cost, some) in enumerate(costs.items()):
        some.sort(key=lambda row: row["size"])
        _draw_line(axes, some, "ours", cost, OURS, "-" if number == 0 else "--")
    if all(row["floor"] and row["floor"] != row["ours"] for row in rows):
        _draw_line(axes, rows, "floor", "floor", FLOOR, ":")
    axes.set_xscale("log")


def _draw_line(axes: Any, rows: list[Row], side: str, label: str, color: str, style: str) -> None:
    sizes = [row["size"] for row in rows]
    medians = [statistics.median(row[side]) for row in rows]
    below = [median - min(row[side]) for median, row in zip(medians, rows, strict=True)]
    above = [max(row[side]) - median for median, row in zip(medians, rows, strict=True)]
    axes.errorbar(
        sizes, medians, yerr=[below, above], label=label, color=color, ls=style, marker="o", ms=3
    )


if __name__ == "__main__":
    main()
