"""How a followed run looks: a progress bar on a terminal, plain lines anywhere else."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from gyoza.cli.terminal import LogText, plain
from gyoza.models import EventEntry, EventType, OpRun, OpRunState


class View(ABC):
    """What is shown of a run; text of its log may come cut anywhere."""

    def __init__(self) -> None:
        self._partial = ""

    @abstractmethod
    def run(self, run: OpRun) -> None:
        """Show where the run stands."""

    @abstractmethod
    def message(self, text: str) -> None:
        """Show a sentence about the run."""

    @abstractmethod
    def log_line(self, line: str) -> None:
        """Show a line of its log, given without its end."""

    def event(self, event: EventEntry) -> None:
        """Show an event that says something in words."""
        if event.type in (EventType.INFO, EventType.ERROR, EventType.RETRIED):
            self.message(f"{event.type}: {event.msg}")

    def log(self, text: str) -> None:
        """Show log text line by line; the start of a line is kept until its end comes."""
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self.log_line(line)

    def end_of_log(self) -> None:
        """Show what is left of a log without a last line end."""
        if self._partial:
            self.log("\n")


class PlainView(View):
    """Lines: the log on one stream, the rest on another."""

    def __init__(self, log: TextIO, rest: TextIO) -> None:
        super().__init__()
        self._log, self._rest = log, rest
        self._shown = ""

    def run(self, run: OpRun) -> None:
        """Print the state and progress if they are news."""
        now = _describe(run)
        if now != self._shown:
            self._shown = now
            self.message(now)

    def message(self, text: str) -> None:
        """Print a line."""
        print(plain(text), file=self._rest, flush=True)

    def log_line(self, line: str) -> None:
        """Print a line, as it is unless somebody sees it right here."""
        print(_for_terminal(line) if self._log.isatty() else line, file=self._log, flush=True)


class LiveView(View):
    """A bar at the bottom of the terminal; all else scrolls by above it."""

    def __init__(self, progress: Progress, log: TextIO | None) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("", total=100)
        self._log = log

    def run(self, run: OpRun) -> None:
        """Move the bar."""
        self._progress.update(self._task, description=plain(_describe(run)), completed=run.progress)

    def message(self, text: str) -> None:
        """Print a dimmed line above the bar."""
        self._progress.console.print(Text(plain(text), style="dim"), soft_wrap=True)

    def log_line(self, line: str) -> None:
        """Print a line above the bar, or to the file that standard output is."""
        if self._log is None:
            self._progress.console.print(Text.from_ansi(_for_terminal(line)), soft_wrap=True)
        else:
            print(line, file=self._log, flush=True)


def _for_terminal(line: str) -> str:
    text = LogText()
    return text.feed(line) + text.end()


def _describe(run: OpRun) -> str:
    text = f"Run {run.id} {run.state}"
    if run.state is OpRunState.PENDING:
        return f"{text}, waiting for a worker"
    if run.current_attempt > 1:
        text += f", attempt {run.current_attempt}"
    return f"{text}, {run.progress} %" if run.state is OpRunState.RUNNING else text


@contextmanager
def open_view(as_json: bool) -> Generator[View]:
    """Open the view that fits where standard output and error go.

    Args:
        as_json: Keep standard output free of the log.
    """
    console = Console(stderr=True, highlight=False)
    log = sys.stderr if as_json else sys.stdout
    if not console.is_terminal:
        yield PlainView(log, sys.stderr)
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
        yield LiveView(progress, None if log.isatty() else log)
