"""What the worker knows of its server: when it last answered, and which answers are its own.

A gyoza server says every error in one sentence and names the lease in its answers to heartbeats.
Whatever else comes back is from something on the way to it: then the server is away. Only of a
small server, which names no lease, an answer without words may mean what its status says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from gyoza.client import ApiError, ClientError, ForeignAnswer, UnexpectedAnswer
from gyoza.client.retry import REPORT

USUAL_LEASE_S = 60.0

NO_SUCH_ENDPOINT = (404, 405, 501)


@dataclass
class ServerContact:
    """What is known about the server.

    Attributes:
        reached_at: When the last heartbeat that was answered had been sent, on Trio's clock; at
            first, when this worker began.
        lease_s: Seconds the server keeps runs for a worker it does not hear of.
        names_lease: Whether the server has named one; None until it has answered a heartbeat.
        drained: Whether the server gives this worker no runs, since a person asked for that.
        answered: Set by the next answer.
    """

    reached_at: float = field(default_factory=trio.current_time)
    lease_s: float = USUAL_LEASE_S
    names_lease: bool | None = None
    drained: bool = False
    answered: trio.Event = field(default_factory=trio.Event)

    @property
    def silence_s(self) -> float:
        """Seconds since the server was last known to hear this worker."""
        return trio.current_time() - self.reached_at

    @property
    def small(self) -> bool:
        """Whether the server is known to be a small one."""
        return self.names_lease is False

    def note(self, sent_at: float, lease_s: float | None) -> None:
        """Take in that a heartbeat sent at this moment was answered, by a lease if it named one."""
        self.reached_at = max(self.reached_at, sent_at)
        self.lease_s = lease_s or self.lease_s
        self.names_lease = bool(lease_s or self.names_lease)
        self.answered.set()
        self.answered = trio.Event()

    def has_no_endpoint(self, error: ApiError | ClientError) -> bool:
        """Whether the server has answered that it has no such endpoint."""
        if not isinstance(error, ApiError) or error.status not in NO_SUCH_ENDPOINT:
            return False
        return self.small or not isinstance(error, ForeignAnswer)

    def require(self, answer: Mapping[str, Any], name: str) -> None:
        """Do nothing if an answer has the field by which the server says that it has understood.

        A small server may answer without a word.

        Raises:
            UnexpectedAnswer: If it has not.
        """
        if self.names_lease and name not in answer:
            raise UnexpectedAnswer(
                f"An answer has no {name}, which a gyoza server always tells: something on the way "
                "to it answers in its place; check GYOZA_SERVER_URL and any proxy."
            )


def is_away(error: ApiError | ClientError) -> bool:
    """Whether the server has not answered, or asks to come again."""
    if isinstance(error, ApiError) and not isinstance(error, ForeignAnswer):
        return error.status in REPORT.statuses
    return True
