"""What a run needs, how often it is tried, and where its events go."""

from dataclasses import dataclass, field
from typing import Any

from gyoza.models.record import Record

MAX_BACKOFF_S = 3600.0
MAX_GRACE_S = 3600.0


@dataclass
class Constraints(Record):
    """Hardware a run needs; its worker reserves it for the whole run.

    Attributes:
        cpu: CPU cores, which may be a fraction; becomes the container's CPU limit.
        ram_mb: Memory in MB, at least 6; becomes the container's memory limit.
        vram_mb: GPU memory in MB; the GPUs that provide it are handed out exclusively.
    """

    cpu: float | None = None
    ram_mb: int | None = None
    vram_mb: int | None = None


@dataclass
class RetryPolicy(Record):
    """How often a failing run is tried.

    Attributes:
        max_attempts: Failing attempts in all, the first included. Attempts lost with their
            worker do not count.
        backoff_s: Seconds before the second attempt; doubles with every further one, up to an hour.
    """

    max_attempts: int = 1
    backoff_s: float = 0.0

    def delay_s(self, failures: int) -> float:
        """Return the seconds to wait after the given number of failed attempts (at least 1)."""
        return min(self.backoff_s * 2.0 ** min(failures - 1, 40), MAX_BACKOFF_S)


@dataclass
class EventDelivery(Record):
    """Where a run's events are published besides the run itself.

    Attributes:
        topic: Name of the feed; empty publishes nothing.
        attributes: Metadata copied to every event of the feed.
    """

    topic: str = ""
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
