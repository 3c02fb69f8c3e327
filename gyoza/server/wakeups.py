"""Keyed wake-ups: who waits for news about a key is woken when that news is on disk.

The pattern of every wait is: watch the keys, read the database, wait for news, read again. Watching
comes first, so that no news falls between the reading and the waiting.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import trio

CLAIMS = "claims"  # a run may be claimed now, or a worker has room again
DUE = "due"  # a lease or a back-off started; the next due time may have changed


def run_key(run_id: str) -> str:
    """Key for events, state and log of one run."""
    return f"run {run_id}"


def feed_key(topic: str) -> str:
    """Key for the event feed of one topic."""
    return f"feed {topic}"


def worker_key(worker_id: str) -> str:
    """Key for what other people do to one worker and the runs it holds."""
    return f"worker {worker_id}"


class Watch:
    """News about some keys, since the last time somebody waited for it."""

    def __init__(self) -> None:
        self._news = trio.Event()

    async def wait(self) -> None:
        """Wait until there is news."""
        await self._news.wait()
        self._news = trio.Event()

    def tell(self) -> None:
        """Note that there is news."""
        self._news.set()


class Wakeups:
    """Wakes the tasks that watch a key. Belongs to the Trio thread.

    Attributes:
        closed: Whether the server is shutting down; nobody should wait any more.
    """

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}
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
            for watch in self._watches.get(key, ()):
                watch.tell()

    def close(self) -> None:
        """Wake everybody for good."""
        self.closed = True
        self.post(list(self._watches))
