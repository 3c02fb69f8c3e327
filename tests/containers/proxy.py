"""A relay in front of a server, which can be told to break, to freeze or to speak TLS."""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

Connect = Callable[[], Awaitable[trio.abc.Stream]]


class Proxy:
    """Relays connections to a server.

    Attributes:
        port: Where it listens on the loopback interface.
        freeze_at: A request that holds these bytes gets no answer.
        freeze_after: An answer gets stuck when it has grown to so many bytes.
        frozen: Set when one of the two has come about.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._scopes: set[trio.CancelScope] = set()
        self.port = 0
        self.freeze_at: bytes | None = None
        self.freeze_after: int | None = None
        self.frozen = trio.Event()
        self._watched: dict[bytes, trio.Event] = {}

    def watch(self, part: bytes) -> trio.Event:
        """Return what is set when a request passes that holds these bytes."""
        return self._watched.setdefault(part, trio.Event())

    def break_all(self) -> None:
        """Cut all connections there are."""
        for scope in self._scopes:
            scope.cancel()

    async def serve(self, client: trio.abc.Stream) -> None:
        """Relay one connection."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            async with await self._connect() as server, client, trio.open_nursery() as nursery:
                nursery.start_soon(self._relay, server, client)
                await self._requests(client, server)
                nursery.cancel_scope.cancel()

    async def _requests(self, client: trio.abc.Stream, server: trio.abc.Stream) -> None:
        stuck = False
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await client.receive_some():
                if self.freeze_at is not None and self.freeze_at in data:
                    stuck = True
                    self.frozen.set()
                if not stuck:
                    await server.send_all(data)
                for part in [part for part in self._watched if part in data]:
                    self._watched.pop(part).set()

    async def _relay(self, source: trio.abc.Stream, target: trio.abc.Stream) -> None:
        length = 0
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some():
                length += len(data)
                if self.freeze_after is not None and length > self.freeze_after:
                    self.frozen.set()
                    await trio.sleep_forever()
                await target.send_all(data)
            await target.aclose()


@asynccontextmanager
async def open_proxy(connect: Connect, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Proxy]:
    """Relay what comes to a free port."""
    proxy = Proxy(connect)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = listener.socket.getsockname()[1]
        secured = (
            listener if tls is None else trio.SSLListener(listener, tls, https_compatible=True)
        )

        async def serve() -> None:
            await trio.serve_listeners(proxy.serve, [secured])

        nursery.start_soon(serve)
        yield proxy
        nursery.cancel_scope.cancel()
