"""A forward proxy as companies have them: CONNECT for https, the whole URL for http."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import trio


class ForwardProxy:
    """Relays to this machine whatever host is asked for.

    Attributes:
        url: Where it listens.
        asked: The first lines of the requests it got.
        authorization: What a request must carry as `Proxy-Authorization`; empty for nothing.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.authorization = ""

    async def serve(self, client: trio.SocketStream) -> None:
        """Relay one connection; each is used for one target only."""
        async with client:
            data = b""
            while b"\r\n\r\n" not in data:
                if not (part := bytes(await client.receive_some())):
                    return
                data += part
            line, _, rest = data.partition(b"\r\n")
            self.asked.append(line.decode())
            if self.authorization and self.authorization.encode() not in rest:
                await client.send_all(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
                )
                return
            method, target, _ = line.decode().split()
            url = urlsplit(f"//{target}" if method == "CONNECT" else target)
            async with await trio.open_tcp_stream("127.0.0.1", url.port or 80) as server:
                if method == "CONNECT":
                    await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = target.partition(url.netloc)[2] or "/"
                    await server.send_all(f"{method} {path} HTTP/1.1\r\n".encode() + rest)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_relay, server, client, nursery.cancel_scope)
                    await _relay(client, server, nursery.cancel_scope)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return urlsplit(self.url).port or 0


async def _relay(
    source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await target.send_all(data)
    scope.cancel()


@asynccontextmanager
async def open_forward_proxy() -> AsyncGenerator[ForwardProxy]:
    """Listen on a free port of the loopback interface."""
    proxy = ForwardProxy()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
