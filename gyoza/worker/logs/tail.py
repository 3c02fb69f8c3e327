"""The end of a text, in bounded memory."""

from collections import deque

MAX_TAIL = 1024 * 1024
"""Characters kept for `ExecutionContext.logs`."""


class Tail:
    """Keeps the last `limit` characters of all that is added."""

    def __init__(self, limit: int = MAX_TAIL) -> None:
        self._limit = limit
        self._pieces: deque[str] = deque()
        self._length = 0

    def add(self, text: str) -> None:
        """Add text, forgetting the oldest pieces that are no longer needed."""
        if not text:
            return
        self._pieces.append(text)
        self._length += len(text)
        while self._length - len(self._pieces[0]) >= self._limit:
            self._length -= len(self._pieces.popleft())

    def text(self) -> str:
        """Return the kept text."""
        return "".join(self._pieces)[-self._limit :]


def last_lines(text: str, lines: int = 20, chars: int = 4000) -> str:
    """Return the last lines of `text`, for the report of a failure."""
    return "\n".join(text[-chars:].splitlines()[-lines:])
