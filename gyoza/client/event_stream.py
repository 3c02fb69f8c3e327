"""Reads server-sent events from parts of a body as they come."""

from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT = 4 * 1024 * 1024
"""Bytes of one event: a server sends 256 KiB of text at most, and JSON makes six bytes of some."""


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        kind: What the field `event` says; "message" if there is none.
        id: What the field `id` says; empty if there is none.
        data: Its data.
    """

    kind: str
    id: str
    data: str


class EventReader:
    """Makes events of bytes that are cut anywhere."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._fields: dict[str, str] = {}
        self._size = 0

    def feed(self, part: bytes) -> Iterator[Event]:
        """Yield the events that end with this part of the body; comments are left out.

        Raises:
            ValueError: If that is too large, or no UTF-8.
        """
        self._rest += part
        self._size += len(part)
        if b"\n" in part:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                yield from self._take(line.removesuffix(b"\r").decode())
        if self._size > MAX_EVENT:
            raise ValueError("an event is too large")

    def _take(self, line: str) -> Iterator[Event]:
        if line:
            name, _, value = line.partition(":")
            if name:
                told = self._fields.get(name)
                value = value.removeprefix(" ")
                self._fields[name] = f"{told}\n{value}" if name == "data" and told else value
            return
        fields, self._fields = self._fields, {}
        self._size = len(self._rest)
        if "data" in fields:
            yield Event(fields.get("event", "message"), fields.get("id", ""), fields["data"])
