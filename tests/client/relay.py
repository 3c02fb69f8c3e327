"""A relay in front of a server, which cuts answers off or shows it under a path of its own."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import trio


class Relay:
    """Relays connections to a server of this machine.

    Args:
        target: The server's URL.
        prefix: The path under which the relay shows it, as a reverse proxy does.

    Attributes:
        url: Where it listens.
        cuts: How many answers are still to be cut off: the connection ends instead.
    """

    def __init__(self, target: str, prefix: str = "") -> None:
        self._prefix = prefix.encode()
        self._host, port = target.removeprefix("http://").split(":")
        self._port = int(port)
        self.url = ""
        self.cuts = 0

    async def serve(self, client: trio.SocketStream) -> None:
        """Relay one connection."""
        async with (
            client,
            await trio.open_tcp_stream(self._host, self._port) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._requests, client, server)
            with suppress(trio.BrokenResourceError):
                async for data in server:
                    if self.cuts:
                        self.cuts -= 1
                        break
                    await client.send_all(data)
            nursery.cancel_scope.cancel()

    async def _requests(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in client:
                await server.send_all(data.replace(b" " + self._prefix + b"/", b" /", 1))
        await server.send_eof()


@asynccontextmanager
async def relaying(target: str, prefix: str = "") -> AsyncGenerator[Relay]:
    """Relay what comes to a free port."""
    relay = Relay(target, prefix)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        relay.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}{prefix}"
        nursery.start_soon(trio.serve_listeners, relay.serve, [listener])
        yield relay
        nursery.cancel_scope.cancel()
