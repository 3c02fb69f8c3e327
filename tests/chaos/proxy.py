"""A relay between a worker and the server that breaks as networks break."""

import socket
import struct
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from tests.chaos.foreign import Page, answer

_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
BLOCK = 65536


@dataclass(eq=False)
class _Connection:
    """One connection that is relayed.

    Attributes:
        scope: Its end.
        moved_at: When anything came last, on Trio's clock.
    """

    scope: trio.CancelScope
    moved_at: float


class Proxy:
    """Relays TCP connections to a port of this machine.

    Attributes:
        busy: Held by the one fault at a time that may disturb it.
        port: Where it listens on the loopback interface.
        delay_s: How long every piece is held back in either direction, in seconds.
        cuts_answers: Whether a connection is reset when an answer begins: after the request came to
            its end, before anything of the answer did.
        cut: How many answers were cut.
        page: Answers every request in the server's place, if there is one.
        calls: When connections were made, as wall-clock times.
        parted: From when to when no request could reach the server, as wall-clock times.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._connections: set[_Connection] = set()
        self._open = trio.Event()
        self._open.set()
        self.busy = trio.Lock()
        self.port = 0
        self.delay_s = 0.0
        self.cuts_answers = False
        self.cut = 0
        self.page: Page | None = None
        self.calls: list[float] = []
        self.parted: list[tuple[float, float]] = []

    def drop(self, quiet_s: float = 0.0) -> int:
        """Reset all connections that were quiet for so many seconds; return how many."""
        since = trio.current_time() - quiet_s
        dropped = [known for known in self._connections if known.moved_at <= since]
        for connection in dropped:
            connection.scope.cancel()
        return len(dropped)

    def part(self) -> None:
        """Hold back everything, as if packets were lost: nobody is told of it."""
        self._open = trio.Event()

    def heal(self) -> None:
        """Relay what was held back, and faithfully from now on."""
        self._open.set()
        self.delay_s = 0.0
        self.cuts_answers = False
        self.page = None

    async def serve(self, client: trio.SocketStream) -> None:
        """Relay one connection until either side ends it."""
        self.calls.append(time.time())
        async with client:
            with trio.CancelScope() as scope:
                connection = _Connection(scope, trio.current_time())
                self._connections.add(connection)
                try:
                    await self._relay_both(client, connection)
                finally:
                    self._connections.discard(connection)
            if scope.cancelled_caught:
                _reset(client)

    async def _relay_both(self, client: trio.SocketStream, connection: _Connection) -> None:
        await self._open.wait()
        if self.page:
            with suppress(trio.BrokenResourceError):
                await answer(client, b"", self.page)
            return
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self._target_port)
        except OSError:
            return  # the server is down; the client sees its connection end
        async with server, trio.open_nursery() as nursery:
            both = connection, nursery.cancel_scope
            nursery.start_soon(self._relay, server, client, *both, True)
            nursery.start_soon(self._relay, client, server, *both, False)

    async def _relay(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        connection: _Connection,
        both: trio.CancelScope,
        answers: bool,
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(BLOCK):
                connection.moved_at = trio.current_time()
                if self.delay_s:
                    await trio.sleep(self.delay_s)
                await self._open.wait()
                if answers and self.cuts_answers:
                    self.cut += 1
                    _reset(target)
                    break
                if self.page and not answers:
                    await answer(source, data, self.page)
                    break
                await target.send_all(data)
        both.cancel()


def _reset(stream: trio.SocketStream) -> None:
    """Close with a reset; closing it once more changes nothing."""
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    stream.socket.close()


@asynccontextmanager
async def open_proxy(target_port: int) -> AsyncGenerator[Proxy]:
    """Relay what comes to a free port of the loopback interface."""
    proxy = Proxy(target_port)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, proxy.serve, listeners)
        yield proxy
        nursery.cancel_scope.cancel()
