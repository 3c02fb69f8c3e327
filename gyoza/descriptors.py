"""How many files, connections among them, this process may have open.

Most systems start programs with a soft limit of 1024, which is for programs that use `select`, and
allow far more: whoever serves or works raises his own (setrlimit(2)).
"""

import logging
import math
import os
from contextlib import suppress

try:
    import resource
except ImportError:  # a system without such limits
    resource = None

OPEN_MAX = 10240
"""What macOS allows where it calls the hard limit infinite."""

OPEN_HERE = "/dev/fd"
"""A folder with an entry for each file that the process has open, on Linux and macOS."""

logger = logging.getLogger(__name__)


def raise_limit() -> float:
    """Raise this process's soft limit of open files to the hard one, and log what it allows.

    Returns:
        How many files may be open at a time.
    """
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        for wanted in (hard, OPEN_MAX):
            if allowed() < _number(wanted):
                with suppress(OSError, ValueError):
                    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    logger.debug("%s files and connections may be open at a time.", in_words())
    return allowed()


def allowed() -> float:
    """Return how many files this process may have open at a time."""
    return math.inf if resource is None else _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def in_words() -> str:
    """Return how many files may be open, as the beginning of a sentence."""
    return "Any number of" if math.isinf(allowed()) else f"Up to {allowed():.0f}"


def free() -> float:
    """Return how many more files this process may open; where nobody tells, none is open yet."""
    try:
        return allowed() - len(os.listdir(OPEN_HERE))
    except FileNotFoundError:
        return allowed()
    except OSError:  # not even one
        return 0


def _number(limit: int) -> float:
    return math.inf if resource is None or limit == resource.RLIM_INFINITY else limit
