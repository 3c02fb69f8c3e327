"""How a followed run looks: a progress bar on a terminal, plain lines anywhere else.

All of it waits for whoever reads, so that it belongs into a thread.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from gyoza.cli.terminal import LogText, plain
from gyoza.cli.text_output import TextOutput
from gyoza.models import EventEntry, EventType, OpRun, OpRunState

MAX_HELD = 64 * 1024
"""Characters of a line that wait for its end."""

MAX_TAIL = 1000
"""Characters that are shown of a line that has not ended."""


@dataclass
class Streams:
    """Where a run is shown, from one view of it to the next.

    Attributes:
        log: For its log.
        rest: For all else.
        held: The start of a line that has not ended yet, if it is not shown before that.
        within_line: Whether the log that was shown has not ended its last line.
        shown: Makes the log fit for a terminal.
    """

    log: TextOutput
    rest: TextOutput
    held: str = ""
    within_line: bool = False
    shown: LogText = field(default_factory=LogText)

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

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    @abstractmethod
    def run(self, run: OpRun) -> None:
        """Show where the run stands."""

    @abstractmethod
    def message(self, text: str) -> None:
        """Show a sentence about the run."""

    @abstractmethod
    def log(self, text: str) -> None:
        """Show text of its log."""

    def event(self, event: EventEntry) -> None:
        """Show an event that says something in words."""
        if event.type in (EventType.INFO, EventType.ERROR, EventType.RETRIED):
            self.message(f"{event.type}: {event.msg}")

    def end_of_log(self) -> None:
        """End the last line of a log that has not ended it itself."""
        if self._streams.held or self._streams.within_line:
            self.log("\n")

    def _write_log(self, text: str) -> None:
        """Write text of the log as it comes: a line may be written over and over."""
        streams = self._streams
        streams.log.write(streams.shown.feed(text) if streams.log.isatty else text)
        streams.within_line = not text.endswith("\n")


class PlainView(View):
    """Text: the log on one stream, the rest on another."""

    def __init__(self, streams: Streams) -> None:
        super().__init__(streams)
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

    def log(self, text: str) -> None:
        """Print text, as it is unless somebody sees it right here.

        Where sentences go to the same file it comes by the line, so that none stands within one.
        """
        streams = self._streams
        if streams.log.shares(streams.rest):
            text = streams.held + text
            cut = max(text.rfind(end) for end in "\r\n") + 1
            if len(text) - cut > MAX_HELD:
                cut = len(text)
            streams.held, text = text[cut:], text[:cut]
        if text:
            self._write_log(text)


class LiveView(View):
    """A bar at the bottom of the terminal; all else scrolls by above it."""

    def __init__(self, progress: "Bar", streams: Streams) -> None:
        super().__init__(streams)
        self._progress = progress
        self._task = progress.add_task("", total=100)

    def run(self, run: OpRun) -> None:
        """Move the bar."""
        self._progress.update(self._task, description=plain(_describe(run)), completed=run.progress)

    def message(self, text: str) -> None:
        """Print a dimmed line above the bar."""
        self._progress.console.print(Text(plain(text), style="dim"), soft_wrap=True)

    @property
    def tail(self) -> str:
        """What is shown at the bar of a line that has not ended."""
        return self._progress.tail.plain

    def log(self, text: str) -> None:
        """Print text to the file that standard output is, or line by line above the bar.

        The start of a line is shown at the bar until its end comes.
        """
        streams = self._streams
        if not streams.log.isatty:
            if text:
                self._write_log(text)
            return
        text = streams.held + text
        cut = text.rfind("\n") + 1
        if len(text) - cut > MAX_HELD:
            cut = len(text)
        streams.held = text[cut:]
        for line in text[:cut].removesuffix("\n").split("\n") if cut else []:
            self._progress.console.print(Text.from_ansi(_for_terminal(line)), soft_wrap=True)
        # Carriage returns begin a line anew: what was written last is what it shows.
        last = next((part for part in reversed(streams.held.split("\r")) if part), "")
        self._progress.tail = Text.from_ansi(_for_terminal(last[:MAX_TAIL]))


class Bar(Progress):
    """A progress bar below the line that the log is in the middle of.

    Attributes:
        tail: That line, as far as it has come.
    """

    tail = Text()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is shown, from top to bottom."""
        if self.tail:
            yield Text(self.tail.plain, no_wrap=True, overflow="ellipsis")
        yield from super().get_renderables()


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
    # FORCE_COLOR asks for colours in a file, and makes no terminal of it.
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield PlainView(streams)
        return
    progress = Bar(
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
