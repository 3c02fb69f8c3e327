"""The server's clock, which can leap: libfaketime, told the time by a file that it reads each time.

Only the clock of the day leaps. The one that timers go by goes on as ever, as on a real machine.
"""

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import trio

LEAP_S = 3600.0
NAME = "libfaketimeMT.so.1"
PLACES = ("usr/lib/*/faketime", "usr/lib/faketime", "usr/lib64/faketime", "usr/local/lib/faketime")
CLOSE_S = 1.0
"""What the server told at a leap is at most so far from the moments that are noted of it."""


class Clock:
    """The clock of one program.

    Args:
        library: libfaketime; None if it is not installed.
        file: Tells it how much the clock is ahead.

    Attributes:
        busy: Held by the one fault at a time that may set it.
        can_leap: Whether it can do more than any clock.
        environment: What a program needs to go by it.
    """

    def __init__(self, library: Path | None, file: Path) -> None:
        self.busy = trio.Lock()
        self.can_leap = library is not None
        self.environment: dict[str, str] = {}
        if self.can_leap:
            self.environment = {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # it makes threads wait for Python's lock
            }
        self._file = file
        self._leaps: list[tuple[float, float, float]] = []
        self._write(0.0)

    async def leap(self, ahead_s: float, lasts_s: float) -> None:
        """Let it be so many seconds ahead, or behind if they are negative, for a while."""
        began = time.time()
        self._write(ahead_s)
        await trio.sleep(lasts_s)
        self._write(0.0)
        self._leaps.append((began, time.time(), ahead_s))

    def correct(self, told: datetime) -> datetime:
        """Return when that was which happened when this clock told such a time."""
        for began, ended, ahead_s in self._leaps:
            truly = told - timedelta(seconds=ahead_s)
            if began - CLOSE_S < truly.timestamp() < ended + CLOSE_S:
                return truly
        return told

    def _write(self, ahead_s: float) -> None:
        written = self._file.with_suffix(".new")
        written.write_text(f"{ahead_s:+.0f}\n", encoding="ascii")
        written.replace(self._file)  # no reader sees half of it


def find_library() -> Path | None:
    """Return libfaketime, if it is installed."""
    found = (library for place in PLACES for library in Path("/").glob(f"{place}/{NAME}"))
    return next(found, None)


def forget(pids: Iterable[int]) -> None:
    """Remove what libfaketime has left in shared memory for programs that were killed."""
    for pid in pids:
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            Path("/dev/shm", name).unlink(missing_ok=True)
