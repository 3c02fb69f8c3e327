"""Finds events among the lines of one stream without looking at ordinary lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from gyoza.worker.op_io.plain_data import Limits, plain_copy

PREFIX = b"::gyoza::"
MAX_EVENT = 64 * 1024
"""Bytes; a longer line is an ordinary one."""

LIMITS = Limits(size=2 * MAX_EVENT, depth=Limits.depth + 1, nodes=5000)
"""What an event may hold; few values, since a flood of events must not keep the worker busy.

Its payload may nest as deep as inputs and outputs.
"""


@dataclass(frozen=True)
class OpEvent:
    """An event that an op sent; `msg` is a percentage for PROGRESS, else text."""

    type: str
    msg: str | int
    payload: dict[str, Any] = field(default_factory=dict[str, Any])


def parse_event(line: bytes) -> OpEvent | None:
    """Read one line; None if it is no well-formed event that an op may send."""
    try:
        data = plain_copy(json.loads(line.removeprefix(PREFIX).decode()), LIMITS)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    fields = cast("dict[str, Any]", data)
    payload = fields.get("payload", {})
    if not isinstance(payload, dict):
        return None
    match fields:
        case {"type": "PROGRESS", "msg": int(msg)} if 0 <= msg <= 100 and type(msg) is int:
            return OpEvent("PROGRESS", msg, cast("dict[str, Any]", payload))
        case {"type": "INFO" | "ERROR" as kind, "msg": str(msg)}:
            return OpEvent(kind, msg, cast("dict[str, Any]", payload))
        case _:
            return None


class EventParser:
    """Separates the events of one stream from its ordinary bytes, for blocks cut anywhere.

    Attributes:
        at_line_start: Whether what is held back, or else what comes next, begins a line.
    """

    def __init__(self, *, at_line_start: bool = True) -> None:
        self._held = bytearray()
        self.at_line_start = at_line_start

    @property
    def held(self) -> int:
        """Bytes held back so far."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[bytes | OpEvent]:
        """Yield ordinary bytes and events in order; holds back what may become an event."""
        if len(self._held) > len(PREFIX) and b"\n" not in data:
            # Still the same line: not looked through again for every few bytes that come.
            self._held += data
            if len(self._held) <= MAX_EVENT:
                return
            data = b""
        data, self._held = bytes(self._held) + data, bytearray()
        at = 0
        while at < len(data):
            start = self._find(data, at)
            yield from self._ordinary(data[at:start])
            end = data.find(b"\n", start)
            line = data[start : end if end >= 0 else len(data)]
            if end < 0 and len(line) <= MAX_EVENT:
                self._held += line
                return
            at = end + 1 if end >= 0 else len(data)
            event = parse_event(line) if len(line) <= MAX_EVENT else None
            yield from (event,) if event else self._ordinary(data[start:at])

    def close(self) -> Iterator[bytes | OpEvent]:
        """Yield what was held back: a last line without a newline may be an event too."""
        held, self._held = bytes(self._held), bytearray()
        event = parse_event(held) if held.startswith(PREFIX) else None
        yield from (event,) if event else self._ordinary(held)

    def _find(self, data: bytes, at: int) -> int:
        """Return where a line begins that is an event or may become one, else the end."""
        if self.at_line_start and data.startswith(PREFIX[: len(data) - at], at):
            return at
        found = data.find(b"\n" + PREFIX, at)
        if found >= 0:
            return found + 1
        last = data.rfind(b"\n", at) + 1
        tail = data[last:] if last > 0 else b""
        return last if tail and PREFIX.startswith(tail) else len(data)

    def _ordinary(self, data: bytes) -> Iterator[bytes]:
        if data:
            self.at_line_start = data.endswith(b"\n")
            yield data
