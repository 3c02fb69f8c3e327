"""When the engine says that something has happened to a container, by its own clock."""

import time
from typing import Any, Self


class EngineEvents:
    """The engine's events of one kind, listened to from before what causes them."""

    def __init__(self, docker: Any, kind: str) -> None:
        # The engine answers before it listens: what happens in between is told because of `since`.
        since = f"{time.time():.9f}"
        wanted = {"type": "container", "event": kind}
        self._events = docker.events(since=since, decode=True, filters=wanted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._events.close()

    def first(self, label: str, value: str) -> float:
        """Wait for a container with the label; return when, in seconds since 1970."""
        return self.moments(label, {value})[value]

    def moments(self, label: str, values: set[str]) -> dict[str, float]:
        """Wait for a container with each of the labels; return when, in seconds since 1970."""
        seen: dict[str, float] = {}
        for event in self._events:
            value = event["Actor"]["Attributes"].get(label)
            if value in values:
                seen[value] = event["timeNano"] / 1e9
            if len(seen) == len(values):
                break
        return seen
