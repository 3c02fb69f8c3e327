"""One event of an attempt, on its way to the server."""

from dataclasses import dataclass, field
from typing import Any

import trio

from gyoza.client import ApiError
from gyoza.models import EventType

TERMINAL = (EventType.COMPLETED, EventType.FAILED)


@dataclass(eq=False)
class Report:
    """An event on its way, and what became of it.

    Attributes:
        seq: Grows from one report of the attempt to the next.
    """

    seq: int
    type: EventType
    msg: str | int
    payload: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    taken: trio.Event = field(default_factory=trio.Event)
    refusal: ApiError | None = None

    @property
    def lasting(self) -> bool:
        """Whether it must outlive the process; progress is told anew by whatever makes some."""
        return self.type != EventType.PROGRESS

    @property
    def fact(self) -> dict[str, Any]:
        """The report as the record keeps it."""
        return {
            "seq": self.seq,
            "type": self.type,
            "msg": self.msg,
            "payload": self.payload,
            "summary": self.summary,
        }

    @classmethod
    def from_fact(cls, fact: dict[str, Any]) -> "Report":
        """Read it back."""
        kind = EventType(fact["type"])
        return cls(fact["seq"], kind, fact["msg"], fact["payload"], fact["summary"])
