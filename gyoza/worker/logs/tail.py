"""The end of a text, in bounded memory."""

from collections import deque
from typing import Self

from gyoza.worker.logs.spool import LogSpool

MAX_TAIL = 1024 * 1024
"""Characters kept for `ExecutionContext.logs`."""

PIECE = 4096
"""Characters up to which pieces are put together: many of one line each would take much room."""

CUT = "[gyoza: the log before this is cut here]\n"


class Tail:
    """Keeps the last `limit` characters of all that is added."""

    def __init__(self, limit: int = MAX_TAIL) -> None:
        self._limit = limit
        self._pieces: deque[str] = deque()
        self._length = 0
        self._cut = False

    @classmethod
    def after(cls, spool: LogSpool) -> Self:
        """Go on where an earlier life of the worker has left off."""
        tail = cls()
        kept = spool.end(MAX_TAIL)
        tail.add(kept)
        tail._cut = len(kept.encode()) < spool.size + spool.cut
        return tail

    def add(self, text: str) -> None:
        """Add text, forgetting the oldest pieces that are no longer needed."""
        if not text:
            return
        small = self._pieces and len(self._pieces[-1]) + len(text) <= PIECE
        self._pieces.append(self._pieces.pop() + text if small else text)
        self._length += len(text)
        while self._length - len(self._pieces[0]) >= self._limit:
            self._length -= len(self._pieces.popleft())
            self._cut = True

    def end(self) -> str:
        """Return the kept text."""
        return "".join(self._pieces)[-self._limit :]

    def text(self) -> str:
        """Return the kept text; a line says so if there was more before it."""
        cut = self._cut or self._length > self._limit
        return CUT + self.end() if cut else self.end()


def last_lines(text: str, lines: int = 20, chars: int = 4000) -> str:
    """Return the last lines of `text`, for the report of a failure."""
    return "\n".join(text[-chars:].splitlines()[-lines:])
