"""Ends the process at once, and leaves what runs to somebody else."""

import logging
import os
import sys

TAKEN = 5
"""Exit code of a worker of whose id there is another process."""


def leave_now(code: int) -> None:
    """End the process without any clean-up; only what has been logged is written out."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
