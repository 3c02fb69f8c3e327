"""The runs of the demo as they go on: a live table on a terminal, lines anywhere else."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import trio
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gyoza.client import AsyncGyozaClient
from gyoza.models import EventEntry, EventType, OpRun, OpRunState

WAIT_S = 20.0
REFRESH_S = 0.1
STYLES = {
    OpRunState.PENDING: "dim",
    OpRunState.COMPLETED: "green",
    OpRunState.FAILED: "red",
    OpRunState.CANCELLED: "yellow",
}


@dataclass
class Row:
    """What is known of a run from its events."""

    name: str
    created: datetime
    state: OpRunState = OpRunState.PENDING
    progress: int = 0
    started: datetime | None = None
    ended: datetime | None = None

    def take(self, event: EventEntry) -> None:
        """Take in an event."""
        self.state = event.state or self.state
        if event.type == EventType.PROGRESS:
            self.progress = int(event.msg)
        elif event.type == EventType.STARTED:
            self.started = event.t
        elif self.state.terminal:
            self.ended = event.t

    @property
    def waited(self) -> str:
        """How long it was in the queue."""
        return _seconds(self.created, self.started or self.ended)

    @property
    def took(self) -> str:
        """How long it has run."""
        return _seconds(self.started, self.ended) if self.started else ""


class Board:
    """All runs, fed by the topic that their events go to."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, Row] = {}
        self._news = ""
        self._began = datetime.now(UTC)

    def add(self, name: str, run: OpRun) -> None:
        """Show a run from now on."""
        self._rows[run.id] = Row(name, run.created_at or self._began)

    async def follow(self, client: AsyncGyozaClient, topic: str) -> None:
        """Read the topic until all runs have ended."""
        cursor = None
        while not all(row.state.terminal for row in self._rows.values()):
            page = await client.get_events(topic, after=cursor, wait_s=WAIT_S)
            cursor = page["cursor"]
            for item in page["data"]:
                self._take(item)

    def _take(self, item: dict[str, Any]) -> None:
        row, event = self._rows[item["run_id"]], EventEntry.from_dict(item["event"])
        row.take(event)
        if event.type in (EventType.INFO, EventType.ERROR):
            self._news = f"{row.name}: {event.msg}"
        elif event.type in (EventType.PROGRESS, EventType.ASSIGNED):
            return
        if not self._console.is_terminal:
            seconds = (event.t - self._began).total_seconds()
            said = f": {event.msg}" if event.type in (EventType.INFO, EventType.ERROR) else ""
            line = f"{seconds:5.1f} s  {row.name:<24}{event.type}{said}"
            self._console.print(line, markup=False, soft_wrap=True)

    @asynccontextmanager
    async def shown(self) -> AsyncGenerator[None]:
        """Show the table while the block lasts; it stays as it is at the end."""
        if not self._console.is_terminal:
            yield
            self._news = ""
            self._console.print("", self.table())
            return
        live = Live(self.table(), console=self._console, auto_refresh=False)
        with live:
            async with trio.open_nursery() as refreshing:
                refreshing.start_soon(self._refresh, live)
                yield
                refreshing.cancel_scope.cancel()
            self._news = ""
            live.update(self.table(), refresh=True)

    async def _refresh(self, live: Live) -> None:
        while True:
            live.update(self.table(), refresh=True)
            await trio.sleep(REFRESH_S)

    def table(self) -> Table:
        """Return the table as of now."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("RUN", "STATE"):
            table.add_column(heading, no_wrap=True)
        table.add_column("PROGRESS", width=20)
        for heading in ("WAITED", "TOOK"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self._rows.values():
            state = Text(row.state, style=STYLES.get(row.state, "cyan"))
            bar = ProgressBar(total=100, completed=row.progress, width=20)
            table.add_row(row.name, state, bar, row.waited, row.took)
        if self._news:
            table.caption = Text(self._news, no_wrap=True, overflow="ellipsis")
            table.caption_justify = "left"
        return table


def _seconds(begin: datetime, end: datetime | None) -> str:
    return f"{((end or datetime.now(UTC)) - begin).total_seconds():.1f} s"
