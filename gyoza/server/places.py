"""Places of which there are few, shared fairly by the holders of keys."""

from collections import Counter, deque

import trio


class Places:
    """A semaphore that serves keys, not requests, in turn: nobody waits for all that another sends.

    A free place goes to the key that has the fewest of them, and there to whoever waits longest.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[trio.Event]] = {}

    async def acquire(self, key_id: str) -> None:
        """Wait for a place."""
        if self._free and not self._waiting:
            self._free -= 1
            self._held[key_id] += 1
            return
        given = trio.Event()
        self._waiting.setdefault(key_id, deque()).append(given)
        try:
            await given.wait()
        except trio.Cancelled:
            if given.is_set():
                self.release(key_id)
            else:
                self._stop_waiting(key_id, given)
            raise

    def release(self, key_id: str) -> None:
        """Let somebody else have the place."""
        self._free += 1
        self._held[key_id] -= 1
        if not self._held[key_id]:
            del self._held[key_id]
        if self._waiting:
            next_id = min(self._waiting, key=lambda waiting: self._held[waiting])
            given = self._waiting[next_id][0]
            self._stop_waiting(next_id, given)
            self._free -= 1
            self._held[next_id] += 1
            given.set()

    def _stop_waiting(self, key_id: str, given: trio.Event) -> None:
        self._waiting[key_id].remove(given)
        if not self._waiting[key_id]:
            del self._waiting[key_id]
