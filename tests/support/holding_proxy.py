"""A relay that holds a chosen request, so that somebody can be killed at that very point."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

Connect = Callable[[], Awaitable[trio.abc.Stream]]


class Hold:
    """One request that is to be held, and with it the connection it comes on.

    Attributes:
        part: Bytes that the request has.
        passed_on: The other side gets the request; its answer is what is held. Otherwise it never
            gets it whole.
        reached: Set when it is held: the answer has come, or the request.
    """

    def __init__(self, part: bytes, *, passed_on: bool) -> None:
        self.part = part
        self.passed_on = passed_on
        self.reached = trio.Event()


class HoldingProxy:
    """Relays connections to a service, which may be away at times.

    Attributes:
        port: Where it listens on the loopback interface.
    """

    def __init__(self, connect: Connect) -> None:
        self.port = 0
        self._connect = connect
        self._holds: list[Hold] = []
        self._watched: dict[bytes, trio.Event] = {}
        self._answers: dict[bytes, trio.Event] = {}
        self._turned_away = 0
        self._news = trio.Event()

    def hold(self, part: bytes, *, passed_on: bool) -> trio.Event:
        """Hold the next request with these bytes; return what is set when it is held.

        It is held until whoever sent it hangs up.
        """
        hold = Hold(part, passed_on=passed_on)
        self._holds.append(hold)
        return hold.reached

    def watch(self, part: bytes) -> trio.Event:
        """Return what is set when the next request with these bytes has been passed on."""
        return self._watched.setdefault(part, trio.Event())

    def watch_answer_to(self, part: bytes) -> trio.Event:
        """Return what is set when the next request with these bytes has been answered."""
        return self._answers.setdefault(part, trio.Event())

    async def turns_away(self, times: int) -> None:
        """Wait until so many more connections have ended because the service was away."""
        enough = self._turned_away + times
        while self._turned_away < enough:
            await self._news.wait()

    async def serve(self, client: trio.abc.Stream) -> None:
        """Relay one connection."""
        async with client:
            try:
                service = await self._connect()
            except OSError:
                self._turned_away += 1
                self._news.set()
                self._news = trio.Event()
                return
            connection = _Connection(client, service)
            async with service, trio.open_nursery() as nursery:
                nursery.start_soon(self._relay_answers, connection)
                await self._relay_requests(connection)
                nursery.cancel_scope.cancel()

    async def _relay_requests(self, connection: "_Connection") -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in connection.client:
                if connection.held is None:
                    connection.held = self._take(data)
                held = connection.held
                if held is not None and not held.passed_on:
                    held.reached.set()
                    continue
                connection.awaited += _pop(self._answers, data)
                await connection.service.send_all(data)
                for passed in _pop(self._watched, data):
                    passed.set()

    async def _relay_answers(self, connection: "_Connection") -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in connection.service:
                if connection.held is not None:
                    connection.held.reached.set()
                    continue
                await connection.client.send_all(data)
                while connection.awaited:
                    connection.awaited.pop().set()
        if connection.held is None:
            await connection.client.aclose()

    def _take(self, data: bytes | bytearray) -> Hold | None:
        for hold in self._holds:
            if hold.part in data:
                self._holds.remove(hold)
                return hold
        return None


class _Connection:
    def __init__(self, client: trio.abc.Stream, service: trio.abc.Stream) -> None:
        self.client = client
        self.service = service
        self.held: Hold | None = None
        self.awaited: list[trio.Event] = []


def _pop(events: dict[bytes, trio.Event], data: bytes | bytearray) -> list[trio.Event]:
    return [events.pop(part) for part in list(events) if part in data]


@asynccontextmanager
async def open_holding_proxy(connect: Connect) -> AsyncGenerator[HoldingProxy]:
    """Relay what comes to a free port of the loopback interface."""
    proxy = HoldingProxy(connect)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
