"""What the routes work with: the database, who waits for what, and the long poll."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import trio
from fastapi import Depends, Request

from gyoza.server.store.database import Database
from gyoza.server.turns import turn_of
from gyoza.server.wakeups import Wakeups, Watch

if TYPE_CHECKING:
    from gyoza.server.leases import Leases

T = TypeVar("T")

MAX_WAIT_S = 60.0


class ClientGone(Exception):
    """The client closed the connection while its request waited; nobody reads an answer."""


@dataclass
class Service:
    """One running server.

    Attributes:
        clock: Returns seconds since 1970.
        lease_s: Seconds a lease lasts without a heartbeat.
        leases: Begins and ends them.
    """

    database: Database
    wakeups: Wakeups
    clock: Callable[[], float]
    lease_s: float
    leases: "Leases"
    _claims: Counter[str] = field(default_factory=Counter[str])

    @property
    def heard_since(self) -> float:
        """A worker whose last heartbeat is before this moment is lost."""
        horizon = self.clock() - self.lease_s
        # No worker can be told lost before the server listened for as long as a lease lasts.
        return horizon if horizon > self.leases.heard_since else -math.inf

    def is_claiming(self, worker_id: str) -> bool:
        """Return whether a claim of this worker is being answered."""
        return self._claims[worker_id] > 0

    @contextmanager
    def claiming(self, worker_id: str) -> Generator[None, None, None]:
        """Mark a claim of this worker as being answered."""
        self._claims[worker_id] += 1
        try:
            yield
        finally:
            self._claims[worker_id] -= 1
            if not self._claims[worker_id]:
                del self._claims[worker_id]

    async def poll(
        self,
        request: Request,
        keys: list[str],
        wait_s: float,
        look: Callable[[], Awaitable[T | None]],
    ) -> T | None:
        """Return the first thing `look` finds, or None after `wait_s` or at shutdown.

        Args:
            request: Whose client waits.
            keys: Look again when there is news about one of these.
            wait_s: Seconds, cut to `MAX_WAIT_S`. It looks at least once.
            look: Returns None for nothing yet.

        Raises:
            ClientGone: If the client does not wait any more.
        """
        with self.wakeups.watch(*keys) as news:
            return await self.poll_news(request, news, wait_s, look)

    async def poll_news(
        self,
        request: Request,
        news: Watch,
        wait_s: float,
        look: Callable[[], Awaitable[T | None]],
    ) -> T | None:
        """Do the same as `poll` with news that are watched already."""
        turn = turn_of(request)
        found = await look()
        deadline = trio.current_time() + min(wait_s, MAX_WAIT_S)
        while found is None and not self.wakeups.closed:
            turn.give_up()
            # One wait for both, since thousands wait: no task that waits for the client beside it.
            if await news.interrupts(partial(_until_gone, request), deadline):
                raise ClientGone
            if trio.current_time() >= deadline:
                break
            await turn.take()
            found = await look()
        return found


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def service_of(request: Request) -> Service:
    """Return the service that the application of a request was made with."""
    return cast("Service", request.app.state.service)


TheService = Annotated[Service, Depends(service_of)]
