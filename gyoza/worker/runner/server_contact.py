"""When the server last took a heartbeat, and how long a lease it gives."""

from dataclasses import dataclass, field

import trio

USUAL_LEASE_S = 60.0


@dataclass
class ServerContact:
    """What the heartbeats know about the server.

    Attributes:
        reached_at: When the last heartbeat that was answered had been sent, on Trio's clock; at
            first, when this worker began.
        lease_s: Seconds the server keeps runs for a worker it does not hear of.
        answered: Set by the next answer.
    """

    reached_at: float = field(default_factory=trio.current_time)
    lease_s: float = USUAL_LEASE_S
    answered: trio.Event = field(default_factory=trio.Event)

    @property
    def silence_s(self) -> float:
        """Seconds since the server was last known to hear this worker."""
        return trio.current_time() - self.reached_at

    def note(self, sent_at: float, lease_s: float | None) -> None:
        """Take in that a heartbeat sent at this moment was answered, by a lease if it named one."""
        self.reached_at = max(self.reached_at, sent_at)
        self.lease_s = lease_s or self.lease_s
        self.answered.set()
        self.answered = trio.Event()
