"""How many runs at a time a worker has open files for."""

import logging

from gyoza import descriptors

FILES_A_RUN = 12
"""Files and connections that one run has open, at most: see `tests/worker/test_slots.py`."""

RESERVE = 128
"""Files and connections for all else: calls to the engine, heartbeats, claims, removals."""

logger = logging.getLogger(__name__)


def slots_that_fit(wanted: int) -> int:
    """Return how many runs there may be at a time: as many as wanted, if their files fit."""
    free = descriptors.free()
    slots = int(max(1, min(wanted, (free - RESERVE) // FILES_A_RUN)))
    if slots < wanted:
        logger.warning(
            "Of %d slots only %d are used, since no more than %d files and connections can be open "
            "here; raise the hard limit (ulimit -Hn, or LimitNOFILE= of systemd).",
            wanted,
            slots,
            descriptors.allowed(),
        )
    return slots
