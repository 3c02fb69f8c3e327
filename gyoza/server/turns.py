"""Turns: how many requests are worked on at once.

A server that works on all there are at once answers all of them late. So each waits for its turn,
in order of arrival but fairly to each key, and gives it up while it waits for news and as soon as
its answer begins. Heartbeats need none: runs are not to change hands because others ask for much.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

from fastapi import Request
from starlette.types import Message, Scope, Send

from gyoza.server.places import Places

HEARTBEAT = "/workers/heartbeat"
NO_TURN = frozenset({HEARTBEAT, "/health", "/readyz"})
"""Addresses whose requests need none."""

KEY = "gyoza.turn"
"""Where the scope of a request keeps its turn."""


class Turn:
    """One request's turn, which it can give up and take again."""

    def __init__(self, places: Places, key_id: str) -> None:
        self._places = places
        self._key_id = key_id
        self._taken = False

    async def take(self) -> None:
        """Wait for it; once is enough."""
        if not self._taken:
            await self._places.acquire(self._key_id)
            self._taken = True

    def give_up(self) -> None:
        """Let the next one have it."""
        if self._taken:
            self._taken = False
            self._places.release(self._key_id)


class NoTurn(Turn):
    """That of a request that needs none."""

    def __init__(self) -> None:
        super().__init__(Places(0), "")

    async def take(self) -> None:
        """Go on at once."""


class Turns:
    """The turns of a server.

    Args:
        at_once: How many requests have one at a time.
    """

    def __init__(self, at_once: int) -> None:
        self._places = Places(at_once)

    @contextmanager
    def of(self, scope: Scope, key_id: str) -> Generator[Turn]:
        """Give a request with a key a turn of its own, not taken yet; it ends with the block."""
        needs_none = scope["path"] in NO_TURN
        turn = scope[KEY] = NoTurn() if needs_none else Turn(self._places, key_id)
        try:
            yield turn
        finally:
            turn.give_up()


def until_answered(turn: Turn, send: Send) -> Send:
    """Return a `send` that gives the turn up: an answer takes as long as its reader likes."""

    async def send_and_give_up(message: Message) -> None:
        turn.give_up()
        await send(message)

    return send_and_give_up


def turn_of(request: Request) -> Turn:
    """Return the turn of a request."""
    return cast("Turn", request.scope[KEY])
