"""Places of which there are few, shared fairly by the holders of keys."""

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count as count_from

import trio


@dataclass(eq=False)
class _Waiter:
    """Somebody who waits for a place.

    Attributes:
        number: Counts those who came.
        given: Set with the place.
    """

    number: int
    given: trio.Event = field(default_factory=trio.Event)


class Places:
    """A semaphore that serves keys, not requests, in turn: nobody waits for all that another sends.

    A free place goes to the key that has the fewest of them, and there to whoever waits longest.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Waiter]] = {}
        self._arrivals = count_from(0)

    async def acquire(self, key_id: str) -> None:
        """Wait for a place."""
        if self._free and not self._waiting:
            self._free -= 1
            self._held[key_id] += 1
            return
        waiter = _Waiter(next(self._arrivals))
        self._waiting.setdefault(key_id, deque()).append(waiter)
        try:
            await waiter.given.wait()
        except trio.Cancelled:
            if waiter.given.is_set():
                self.release(key_id)
            else:
                self._stop_waiting(key_id, waiter)
            raise

    def release(self, key_id: str) -> None:
        """Let somebody else have the place."""
        self._free += 1
        self._held[key_id] -= 1
        if not self._held[key_id]:
            del self._held[key_id]
        if self._waiting:
            next_id = min(self._waiting, key=self._rank)
            waiter = self._waiting[next_id][0]
            self._stop_waiting(next_id, waiter)
            self._free -= 1
            self._held[next_id] += 1
            waiter.given.set()

    def _rank(self, key_id: str) -> tuple[int, int]:
        return self._held[key_id], self._waiting[key_id][0].number

    def _stop_waiting(self, key_id: str, waiter: _Waiter) -> None:
        self._waiting[key_id].remove(waiter)
        if not self._waiting[key_id]:
            del self._waiting[key_id]
