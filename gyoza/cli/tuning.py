"""How a process of ours that runs for long is set up, beyond what Python does for any program."""

import gc
import sys
from contextlib import suppress

from gyoza import descriptors

SWITCH_S = 0.0005
"""Seconds the loop and a thread leave each other: a statement of SQL gives up its turn twice, and
by default waits 5 ms for it each time."""

WORKER = (10_000, 5, 5)
"""When garbage is looked for, as `gc.set_threshold` takes it: a worker has few objects that live
long, but leaves some garbage with every run, and must not grow by it."""

SERVER = (50_000, 5, 20)
"""The same where a thousand long polls may wait: they are no garbage, and to look through all of
them again and again takes a quarter of a busy server's time, and stops it for up to half a second.
"""

ARENA_MAX = -8
"""What `mallopt` of the GNU C library calls the number of heaps (`malloc.h`)."""


def tune_process(collect: tuple[int, int, int]) -> None:
    """Set up this process, which will do nothing but serve or work; call it after the imports.

    It may open as many files, connections among them, as the system lets it.

    What is imported stays, and is never looked through for garbage. Threads share one heap: with
    one for each, what is free in the heap of a thread that has nothing to do is of use to nobody,
    and the process grows by it for hours.

    Args:
        collect: `WORKER` or `SERVER`.
    """
    import ctypes  # of no use to any other command

    descriptors.raise_limit()
    sys.setswitchinterval(SWITCH_S)
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)
    gc.set_threshold(*collect)
    gc.freeze()
