"""An engine that says what a test wants to hear."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import trio

from gyoza.worker.containers.docker_engine import DockerEngine

Said: TypeAlias = bytes | list[bytes] | trio.MemoryReceiveChannel[bytes]
Answers: TypeAlias = Mapping[bytes, Said]

Script: TypeAlias = Callable[..., AbstractAsyncContextManager[DockerEngine]]
"""Opens an engine that gives such answers."""


def answer(status: int, body: Any) -> bytes:
    """Return an answer with a JSON body."""
    text = json.dumps(body).encode()
    return b"HTTP/1.0 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


# The head of an answer whose body does not come.
BEGUN = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
VERSION: Answers = {b"GET /version": answer(200, {"ApiVersion": "1.41"})}


@asynccontextmanager
async def unix_server(path: Path, answers: Answers) -> AsyncGenerator[None]:
    """Answer the requests on a Unix socket.

    Args:
        path: Where the socket is made.
        answers: Part of a request to the answer, to the answers in turn, or to a channel with the
            pieces of one; other requests are never answered.
    """

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            request = (await stream.receive_some()).partition(b"HTTP/1.1")[0]
            for part, said in answers.items():
                if part in request:
                    with suppress(trio.BrokenResourceError):  # the client has left
                        return await say(stream, said)
            await trio.sleep_forever()

    async def say(stream: trio.SocketStream, said: Said) -> None:
        if isinstance(said, trio.MemoryReceiveChannel):
            async for piece in said:
                await stream.send_all(piece)
            return
        said = said.pop(0) if isinstance(said, list) else said
        await stream.send_all(said)
        if said == BEGUN:
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
