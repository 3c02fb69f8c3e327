"""What a worker can lack for a run: open files, memory, threads, room on a disk.

No run is at fault for that. One that has not begun is given back; of one that has, what failed is
done again as soon as there is enough.
"""

import errno
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Generic, TypeVar

import trio

from gyoza.worker.backoff import Backoff
from gyoza.worker.errors import EngineError

T = TypeVar("T")

NO_THREAD = "can't start new thread"
"""What Python says if the system refuses a thread."""

_WHAT = {
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.ENOMEM: "memory",
    errno.ENOSPC: "room on a disk",
    errno.EDQUOT: "room on a disk",
    errno.EROFS: "a disk that can be written",
    errno.EIO: "a disk that works",
}
# How an engine says so, whose system is Linux, whatever this one is.
_WORDS = {
    "too many open files": "open files",
    "cannot allocate memory": "memory",
    "no space left on device": "room on a disk",
    "disk quota exceeded": "room on a disk",
    "resource temporarily unavailable": "processes or threads",
}
# Errors whose numbers are not those of the system.
_OTHER_NUMBERS = (ssl.SSLError, socket.gaierror, socket.herror)

logger = logging.getLogger(__name__)


def lack_of(error: BaseException) -> str | None:
    """Return what the worker lacks, in words, if that is what led to an error; else None.

    An error that code of somebody else's has raised, such as a step of a user's own, is not to be
    asked: what it lacks may be its own fault.
    """
    told = [lack for cause in _chain(error) if (lack := _lack_told_by(cause))]
    return told[-1] if told else None


async def outlast(
    call: Callable[[], Awaitable[T]], who: str, judge: Callable[[Exception], str | None] = lack_of
) -> T:
    """Return what the call returns, made again and again while the worker lacks something for it.

    Whoever calls this bounds it.

    Args:
        call: Can be made again after it has failed.
        who: Waits, in the words of the log.
        judge: Tells what an error says is lacking, as `lack_of` does.
    """
    backoff, told = Backoff(), False
    while True:
        try:
            return await call()
        except Exception as error:
            if (lack := judge(error)) is None:
                raise
            if not told:
                logger.warning("%s waits: this worker lacks %s.", who, lack)
            told = True
        await backoff.wait()


async def in_thread(
    function: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None
) -> T:
    """Run a blocking function in a thread, as soon as the system grants one.

    What the function itself raises is raised, whatever it is.
    """
    thread = Thread(function, *args, limiter=limiter)
    return await outlast(thread.run, "What needs a thread", thread.lack_of)


class Thread(Generic[T]):
    """A blocking function that is to run in a thread, and is not to be blamed if there is none.

    Args:
        function: What runs.
        args: Its arguments.
        limiter: Limits the threads of its kind; Trio's own by default.
    """

    def __init__(
        self,
        function: Callable[..., T],
        *args: object,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self._call = partial(function, *args)
        self._limiter = limiter
        self._begun = False

    async def run(self) -> T:
        """Return what the function returns."""
        return await trio.to_thread.run_sync(self._in_thread, limiter=self._limiter)

    def lack_of(self, error: Exception) -> str | None:
        """Return what is lacking if the function did not even begin."""
        return None if self._begun else lack_of(error)

    def _in_thread(self) -> T:
        self._begun = True
        return self._call()


def _lack_told_by(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError) and not isinstance(error, _OTHER_NUMBERS):
        what = _WHAT.get(error.errno or 0)
        return what and f"{what} ({_words_of(error)})"
    words = str(error)
    if isinstance(error, RuntimeError) and words == NO_THREAD:
        return "threads"
    if isinstance(error, EngineError):
        told = words.lower()
        return next((f"{_WORDS[w]} (the engine says: {words})" for w in _WORDS if w in told), None)
    return None


def _words_of(error: OSError) -> str:
    """Return the system's words, and the file's name if there is one."""
    words = os.strerror(error.errno or 0)
    return f"{words}: {error.filename}" if error.filename else words


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and what led to it, as far as it is told."""
    while error is not None:
        yield error
        hidden = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or hidden
