"""Requests in threads: a limiter for each kind, a deadline for all but the endless."""

from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

import trio

from gyoza.worker.containers.docker_address import engine_address
from gyoza.worker.containers.docker_call import Call
from gyoza.worker.containers.docker_client import connect, own_errors
from gyoza.worker.containers.docker_http import EngineHttp, Response
from gyoza.worker.errors import EngineUnavailable

T = TypeVar("T")

# Creating, starting and removing wait for the disk.
SLOWNESS = 4


class DockerThreads:
    """Runs requests to the Docker Engine, each in a thread on a connection of its own.

    The engine is first spoken to by the first request.

    Attributes:
        host: Where the engine is, as in DOCKER_HOST.
        quick: Limits requests that only look, or send a signal.
        changes: Limits requests that make the engine work.
        pulls: Limits pulls.
        waits: Limits waits; every container holds one for as long as it runs, and who stops it
            another.
        streams: Limits reads from containers' output; the same.
    """

    def __init__(self, concurrency: int, deadline_s: float) -> None:
        self._address = engine_address()
        self.host = self._address.host
        self.quick = trio.CapacityLimiter(16)
        self.changes = trio.CapacityLimiter(16)
        self.pulls = trio.CapacityLimiter(concurrency)
        self.waits = trio.CapacityLimiter(2 * concurrency)
        self.streams = trio.CapacityLimiter(2 * concurrency)
        self._pool_size = 5 * concurrency + 32
        self._deadline_s = deadline_s
        self._client: EngineHttp | None = None

    def close(self) -> None:
        """Release the client; no connection outlives its request anyway."""
        if self._client is not None:
            self._client.close()

    async def ask(
        self,
        request: Callable[[EngineHttp], T],
        *,
        slow: bool = False,
        shield: bool = False,
        limiter: trio.CapacityLimiter | None = None,
        call: Call | None = None,
    ) -> T:
        """Return what the request returns.

        Args:
            request: Gets the client.
            slow: It changes something, and may take longer.
            shield: It is not cancelled, only ended at its deadline.
            limiter: If it is neither `quick` nor one of the `changes`.
            call: Stays open after the request; by default the connection ends with it.

        Raises:
            EngineUnavailable: At the deadline.
            EngineError: For whatever else goes wrong.
        """
        deadline_s = self._deadline_s * SLOWNESS if slow else self._deadline_s
        limiter = limiter or (self.changes if slow else self.quick)
        with trio.move_on_after(deadline_s, shield=shield):
            return await self.run(request, limiter, call)
        raise EngineUnavailable(
            f"The Docker Engine at {self.host} did not answer within {deadline_s:g} s."
        )

    async def open(
        self, request: Callable[[EngineHttp], Response], limiter: trio.CapacityLimiter, call: Call
    ) -> Response:
        """Return a response whose body is read later, for as long as the call stays open.

        Raises:
            EngineError: As `ask`.
        """

        def open_(client: EngineHttp) -> Response:
            response = request(client)
            call.answered(response)
            return response

        return await self.ask(open_, limiter=limiter, call=call)

    async def run(
        self,
        request: Callable[[EngineHttp], T],
        limiter: trio.CapacityLimiter,
        call: Call | None = None,
    ) -> T:
        """Return what the request returns, however long it takes."""

        def in_thread() -> T:
            with own_errors(self.host):
                return request(self._connected())

        if call is not None:
            return await call.run(in_thread, limiter)
        with closing(Call()) as call:
            return await call.run(in_thread, limiter)

    def _connected(self) -> EngineHttp:
        # Two first requests at once may make two clients, and the last stays: no harm, no lock.
        if self._client is None:
            patience_s = self._deadline_s * SLOWNESS
            self._client = connect(self._address, patience_s, self._pool_size)
        return self._client
