"""Memory for bodies that come: bounded in all, and shared by the holders of keys.

Bytes are counted as they come, so that a slow body takes no more than has come of it. When there is
no room left, the key that has most of it gives way, with the body that is the longest under way.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio


@dataclass(eq=False)
class Body:
    """A body that comes.

    Attributes:
        key_id: Whose it is.
        reading: Cancelled if it has to give way.
        size: Bytes that came of it.
        gave_way: Whether it had to.
    """

    key_id: str
    reading: trio.CancelScope = field(default_factory=trio.CancelScope)
    size: int = 0
    gave_way: bool = False


class BodyMemory:
    """What there is of it. Belongs to the Trio thread.

    Args:
        size: In bytes.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._of_key: Counter[str] = Counter()
        self._coming: dict[Body, None] = {}  # the first has been under way for longest
        self._released = trio.Event()

    @contextmanager
    def body(self, key_id: str) -> Generator[Body]:
        """Count a new body, until the block ends."""
        body = Body(key_id)
        self._coming[body] = None
        try:
            yield body
        finally:
            self._release(body)

    async def take(self, body: Body, size: int) -> None:
        """Take room for some more bytes of a body; others may have to give way, or this one."""
        while self._free < size and not body.gave_way:
            if not self._make_way():
                await self._released.wait()
        self._free -= size
        self._of_key[body.key_id] += size
        body.size += size

    def keep(self, body: Body) -> None:
        """Note that a body is whole: from now on it does not give way."""
        self._coming.pop(body, None)

    def _make_way(self) -> bool:
        if not self._coming:
            return False
        most = max({body.key_id for body in self._coming}, key=lambda id: self._of_key[id])
        body = next(body for body in self._coming if body.key_id == most)
        body.gave_way = True
        self._release(body)
        body.reading.cancel()
        return True

    def _release(self, body: Body) -> None:
        self._coming.pop(body, None)
        self._free += body.size
        self._of_key[body.key_id] -= body.size
        if not self._of_key[body.key_id]:
            del self._of_key[body.key_id]
        body.size = 0
        self._released.set()
        self._released = trio.Event()
