"""The line of claims that wait: a run is offered to one worker after the other, not to all at once.

Whoever has waited longest looks first. If something is left then, the next one looks, until nothing
is left or everybody who waits has looked. A thousand workers that wait cost no more than one.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


class Waiter(Protocol):
    """Whom to tell that it is its turn."""

    def tell(self) -> None:
        """Have it look."""


@dataclass(eq=False)
class Place:
    """One claim's place.

    Attributes:
        waiter: Is told when it is its turn.
        seen: How much of the news it has looked at.
    """

    waiter: Waiter
    seen: int


class Line:
    """Who waits for a run, in order of arrival. Belongs to the Trio thread."""

    def __init__(self) -> None:
        self._places: dict[Place, None] = {}
        self._looking: Place | None = None
        self._news = 1  # there may be runs from before the start
        self._settled = 0  # of the news, what left nothing for anybody

    @property
    def settled(self) -> bool:
        """Whether there is nothing to claim, as far as is known."""
        return self._settled == self._news

    @contextmanager
    def stand(self, waiter: Waiter) -> Generator[Place]:
        """Take a place; whoever leaves it in its turn lets the next one look."""
        place = Place(waiter, self._news)
        self._places[place] = None
        try:
            yield place
        finally:
            del self._places[place]
            self._pass_on(place)

    def tell(self) -> None:
        """Note that there may be a run to claim."""
        self._news += 1
        self._call_next()

    def begin_look(self, place: Place) -> None:
        """Note that this one looks now: at all the news there is."""
        place.seen = self._news

    def end_look(self, place: Place, *, nothing_left: bool) -> None:
        """Let the next one look, unless there is nothing left."""
        if nothing_left:
            self._settled = max(self._settled, place.seen)
        self._pass_on(place)

    def _pass_on(self, place: Place) -> None:
        if self._looking is place:
            self._looking = None
            self._call_next()

    def _call_next(self) -> None:
        if self._looking is not None or self.settled:
            return
        for place in self._places:
            if place.seen < self._news:
                self._looking = place
                place.waiter.tell()
                return
