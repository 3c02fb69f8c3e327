"""How answers are printed: tables and key-value lists for people, one JSON document for scripts."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from gyoza.cli.terminal import plain

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
    "lost": "red",
}


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # JSON itself escapes only the first half of the control characters; these stand in strings.
    print(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))


def say(sentence: str) -> None:
    """Print a sentence that is the command's result."""
    print(plain(sentence))


def note(sentence: str) -> None:
    """Print a sentence that is not the command's result on standard error."""
    print(plain(sentence), file=sys.stderr)


def console() -> "Console":
    """Return the console of standard output; a pipe is wide, so that nothing is cut."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 240)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> None:
    """Print rows under their headings, or the sentence `nothing` if there are none.

    States are coloured on a terminal; the first column is never shortened.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=True, overflow="ellipsis" if index else "ignore")
    for row in rows:
        cells = ("" if cell is None else plain(str(cell)) for cell in row)
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in cells))
    if table.row_count:
        console().print(table)
    else:
        note(nothing)


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


def ago(moment: datetime | None) -> str:
    """Return how long ago a moment was, in its largest unit."""
    if moment is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


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
