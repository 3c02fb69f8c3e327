"""How answers are printed: tables and key-value lists for people, one JSON document for scripts."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from gyoza.cli.terminal import plain, plain_json

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

STATE_STYLES = {
    "RUNNING": "cyan",
    "ASSIGNED": "cyan",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "online": "green",
    "draining": "yellow",
    "offline": "dim",
    "lost": "red",
}


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    print(plain_json(json.dumps(document, indent=2, ensure_ascii=False)))


def say(sentence: str) -> None:
    """Print a sentence that is the command's result."""
    print(plain(sentence))


def note(sentence: str) -> None:
    """Print a sentence that is not the command's result on standard error."""
    print(plain(sentence), file=sys.stderr)


def confirmed(question: str) -> bool:
    """Ask on standard error; whoever says nothing says no."""
    print(f"{plain(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    with suppress(KeyboardInterrupt, EOFError):
        return input().strip().lower() in ("y", "yes")
    print(file=sys.stderr)
    return False


def can_show(text: str) -> bool:
    """Return whether standard output has a way to write the text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def console() -> "Console":
    """Return the console of standard output."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 240)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        rank: On a narrow terminal the column of the highest rank is left out first; one of rank 0
            never is.
        cut: May be shortened. An id or a state may not: half of one is of no use.
        least: Characters it has at least when shortened.
    """

    name: str
    rank: int = 0
    cut: bool = False
    least: int = 8


GAP = 2
"""Characters between two columns."""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]], nothing: str) -> None:
    """Print rows under their headings, or the sentence `nothing` if there are none.

    On a terminal states are coloured, and lines fit its width as far as columns may be shortened or
    left out; anywhere else all is printed whole.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    cells = [["" if cell is None else plain(str(cell)) for cell in row] for row in rows]
    if not cells:
        note(nothing)
        return
    widths = [max(map(cell_len, texts)) for texts in zip(*cells, strict=True)]
    widths = [max(width, len(c.name)) for width, c in zip(widths, columns, strict=True)]
    screen = console()
    shown = fit(columns, widths, screen.width if sys.stdout.isatty() else None)
    last = max(shown)
    more = "…" if can_show("…") else "~"
    for number, row in enumerate([[column.name for column in columns], *cells]):
        line = Text(style="" if number else "bold")
        for index, width in shown.items():
            text = row[index]
            if cell_len(text) > width:
                text = set_cell_size(text, width - 1) + more
            line.append(text, style=STATE_STYLES.get(text, ""))
            if index != last:
                line.append(" " * (width - cell_len(text) + GAP))
        screen.print(line, soft_wrap=True)


def fit(columns: Sequence[Column], widths: Sequence[int], room: int | None) -> dict[int, int]:
    """Return which columns are shown, by their number, and how wide.

    Args:
        columns: All of them.
        widths: How wide each is.
        room: How wide a line may be; None for any width.
    """
    shown = dict(enumerate(widths))
    if room is None:
        return shown

    def excess(least: bool) -> int:
        held = (
            min(w, columns[i].least) if least and columns[i].cut else w for i, w in shown.items()
        )
        return sum(held) + GAP * (len(shown) - 1) - room

    while excess(least=True) > 0 and any(columns[i].rank for i in shown):
        del shown[max(shown, key=lambda i: columns[i].rank)]
    while excess(least=False) > 0:
        wide = [i for i, w in shown.items() if columns[i].cut and w > columns[i].least]
        if not wide:
            break
        shown[max(wide, key=lambda i: shown[i])] -= 1
    return shown


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values below each other, leaving out what is empty."""
    from rich.text import Text

    shown = {name: value for name, value in fields.items() if value not in (None, "", [], {})}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        text = plain(str(value) if not isinstance(value, dict | list) else compact(value))
        line = Text(f"{name:<{width}}  ", style="bold")
        line.append(text, style=STATE_STYLES.get(text, "not bold"))
        console().print(line, soft_wrap=True)


def compact(value: Any) -> str:
    """Return plain data on one line."""
    return json.dumps(value, ensure_ascii=False)


def moment(time: datetime | str | None) -> str | None:
    """Return a time as this machine's clock tells it, with the date."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    return None if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def ago(time: datetime | None) -> str:
    """Return how long ago a moment was, in its largest unit."""
    if time is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - time).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def since(time: datetime | str | None) -> str | None:
    """Return a moment and how long ago it was."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    return None if time is None else f"{moment(time)}, {ago(time)} ago"


def made_by(answer: Mapping[str, Any]) -> str | None:
    """Return who made something: the name of the API key, and its id."""
    key = answer.get("created_by")
    if not isinstance(key, dict):
        return None
    told = cast("dict[str, Any]", key)
    return f"{told.get('name')} (key {told.get('id')})"


def read_as(read: Callable[[dict[str, Any]], T], data: dict[str, Any]) -> T:
    """Return an answer as the type it should be.

    Raises:
        UnexpectedAnswer: If it lacks what the type needs.
    """
    try:
        return read(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        from gyoza.client import UnexpectedAnswer

        raise UnexpectedAnswer(
            f"The server did not answer as a gyoza server does ({error}); check GYOZA_SERVER_URL."
        ) from error
