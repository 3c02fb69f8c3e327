"""How a followed run looks: a progress bar on a terminal, plain lines anywhere else.

All of it waits for whoever reads, so that it belongs into a thread.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from gyoza.cli.terminal import LogText, plain
from gyoza.cli.text_output import TextOutput
from gyoza.models import EventEntry, EventType, OpRun, OpRunState

LINE_ENDS = "\r\n"
"""What ends a line, or begins it anew as progress bars do."""

MAX_HELD = 64 * 1024
"""Characters of a line that wait for its end."""


@dataclass
class Streams:
    """Where a run is shown, from one view of it to the next.

    Attributes:
        log: For its log.
        rest: For all else.
        held: The start of a line that has not ended yet.
        within_line: Whether the log that was shown has not ended its last line.
    """

    log: TextOutput
    rest: TextOutput
    held: str = ""
    within_line: bool = False

    @classmethod
    def standard(cls, as_json: bool) -> Self:
        """Return standard output and error.

        Args:
            as_json: Keep standard output free of the log.
        """
        rest = TextOutput(sys.stderr)
        return cls(rest if as_json else TextOutput(sys.stdout, rest), rest)


class View(ABC):
    """What is shown of a run; text of its log may come cut anywhere."""

    def __init__(self, streams: Streams, line_ends: str) -> None:
        self._streams = streams
        self._line_ends = line_ends

    @abstractmethod
    def run(self, run: OpRun) -> None:
        """Show where the run stands."""

    @abstractmethod
    def message(self, text: str) -> None:
        """Show a sentence about the run."""

    @abstractmethod
    def log_text(self, text: str) -> None:
        """Show text of its log, most often whole lines."""

    def event(self, event: EventEntry) -> None:
        """Show an event that says something in words."""
        if event.type in (EventType.INFO, EventType.ERROR, EventType.RETRIED):
            self.message(f"{event.type}: {event.msg}")

    def log(self, text: str) -> None:
        """Show log text line by line; the start of a line is kept until its end comes."""
        text = self._streams.held + text
        cut = max(text.rfind(end) for end in self._line_ends) + 1
        if len(text) - cut > MAX_HELD:
            cut = len(text)
        self._streams.held = text[cut:]
        if cut:
            self.log_text(text[:cut])
            self._streams.within_line = not text[:cut].endswith("\n")

    def end_of_log(self) -> None:
        """Show what is left of a log without a last line end."""
        if self._streams.held or self._streams.within_line:
            self.log("\n")


class PlainView(View):
    """Text: the log on one stream, the rest on another."""

    def __init__(self, streams: Streams) -> None:
        super().__init__(streams, LINE_ENDS)
        self._shown = ""

    def run(self, run: OpRun) -> None:
        """Print the state and progress if they are news."""
        now = _describe(run)
        if now != self._shown:
            self._shown = now
            self.message(now)

    def message(self, text: str) -> None:
        """Print a line."""
        self._streams.rest.write(f"{plain(text)}\n")

    def log_text(self, text: str) -> None:
        """Print text, as it is unless somebody sees it right here."""
        log = self._streams.log
        log.write(_for_terminal(text) if log.isatty else text)


class LiveView(View):
    """A bar at the bottom of the terminal; all else scrolls by above it."""

    def __init__(self, progress: Progress, streams: Streams) -> None:
        # Above the bar each line stays, so that it is shown as it is in the end.
        super().__init__(streams, "\n" if streams.log.isatty else LINE_ENDS)
        self._progress = progress
        self._task = progress.add_task("", total=100)

    def run(self, run: OpRun) -> None:
        """Move the bar."""
        self._progress.update(self._task, description=plain(_describe(run)), completed=run.progress)

    def message(self, text: str) -> None:
        """Print a dimmed line above the bar."""
        self._progress.console.print(Text(plain(text), style="dim"), soft_wrap=True)

    def log_text(self, text: str) -> None:
        """Print lines above the bar, or to the file that standard output is."""
        if not self._streams.log.isatty:
            self._streams.log.write(text)
            return
        for line in text.removesuffix("\n").split("\n"):
            self._progress.console.print(Text.from_ansi(_for_terminal(line)), soft_wrap=True)


def _for_terminal(text: str) -> str:
    shown = LogText()
    return shown.feed(text) + shown.end()


def _describe(run: OpRun) -> str:
    text = f"Run {run.id} {run.state}"
    if run.state is OpRunState.PENDING:
        return f"{text}, waiting for a worker"
    if run.current_attempt > 1:
        text += f", attempt {run.current_attempt}"
    return f"{text}, {run.progress} %" if run.state is OpRunState.RUNNING else text


@contextmanager
def open_view(streams: Streams) -> Generator[View]:
    """Open the view that fits where standard output and error go."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield PlainView(streams)
        return
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
    )
    with progress:
        yield LiveView(progress, streams)
