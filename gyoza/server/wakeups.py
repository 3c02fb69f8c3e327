"""Keyed wake-ups: who waits for news about a key is woken when that news is on disk.

The pattern of every wait is: watch the keys, read the database, wait for news, read again. Watching
comes first, so that no news falls between the reading and the waiting.
"""

import math
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager

import trio

from gyoza.server.line import Line

CLAIMS = "claims"  # a run may be claimed now: told along the line, to one after the other
DUE = "due"  # a back-off started; the next due time may be sooner


def run_key(run_id: str) -> str:
    """Key for events, state and log of one run."""
    return f"run {run_id}"


def end_key(run_id: str) -> str:
    """Key for the end of one run."""
    return f"end {run_id}"


def feed_key(topic: str) -> str:
    """Key for the event feed of one topic."""
    return f"feed {topic}"


def worker_key(worker_id: str) -> str:
    """Key for what other people do to one worker and the runs it holds."""
    return f"worker {worker_id}"


ROOM = "room "


def room_key(worker_id: str) -> str:
    """Key for a worker's own runs that end: it has room again for one that waits."""
    return ROOM + worker_id


class Watch:
    """News about some keys, since the last time somebody waited for it."""

    def __init__(self) -> None:
        self._told = False
        self._waiting = trio.CancelScope()

    async def wait(self) -> None:
        """Wait until there is news."""
        await self.interrupts(trio.sleep_forever, math.inf)

    async def interrupts(self, other: Callable[[], Awaitable[object]], deadline: float) -> bool:
        """Wait for something else, but only until there is news, or the deadline.

        Returns:
            Whether the other thing came first.
        """
        if not self._told:
            with trio.CancelScope(deadline=deadline) as self._waiting:
                await other()
            if not self._waiting.cancelled_caught:
                return True
        self._told = False
        return False

    def tell(self) -> None:
        """Note that there is news."""
        self._told = True
        self._waiting.cancel()


class Wakeups:
    """Wakes the tasks that watch a key. Belongs to the Trio thread.

    Attributes:
        line: The claims that wait.
        closed: Whether the server is shutting down; nobody should wait any more.
    """

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}
        self.line = Line()
        self.closed = False

    @contextmanager
    def watch(self, *keys: str) -> Generator[Watch, None, None]:
        """Collect news about any of the keys, from now on."""
        watch = Watch()
        for key in keys:
            self._watches.setdefault(key, set()).add(watch)
        try:
            yield watch
        finally:
            for key in keys:
                self._watches[key].discard(watch)
                if not self._watches[key]:
                    del self._watches[key]

    def post(self, keys: Iterable[str]) -> None:
        """Wake everybody who watches one of the keys."""
        for key in keys:
            if key == CLAIMS:
                self.line.tell()
            if key.startswith(ROOM) and self.line.settled:
                continue
            for watch in self._watches.get(key, ()):
                watch.tell()

    def close(self) -> None:
        """Wake everybody for good."""
        self.closed = True
        self.post(list(self._watches))
