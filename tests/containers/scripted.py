"""An engine that says what a test wants to hear."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio


def answer(status: int, body: Any) -> bytes:
    """Return an answer with a JSON body."""
    text = json.dumps(body).encode()
    return b"HTTP/1.0 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


# The head of an answer whose body does not come.
BEGUN = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
VERSION = {b"GET /version": answer(200, {"ApiVersion": "1.41"})}


@asynccontextmanager
async def unix_server(
    path: Path, answers: Mapping[bytes, bytes | list[bytes]]
) -> AsyncGenerator[None]:
    """Answer the requests on a Unix socket.

    Args:
        path: Where the socket is made.
        answers: Part of a request to the answer, or to the answers in turn; other requests are
            never answered.
    """

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            request = (await stream.receive_some()).partition(b"HTTP/1.1")[0]
            for part, said in answers.items():
                if part in request:
                    said = said.pop(0) if isinstance(said, list) else said
                    await stream.send_all(said)
                    if said != BEGUN:
                        return
            await trio.sleep_forever()

    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
        await listener.bind(str(path))
        listener.listen()
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                await trio.serve_listeners(serve, [trio.SocketListener(listener)])

            nursery.start_soon(listen)
            yield
            nursery.cancel_scope.cancel()
