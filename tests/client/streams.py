"""A server that sends log streams byte by byte as a test says, and remembers what it was asked."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

Talk = Callable[[trio.SocketStream], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nGyoza-Attempt: 2\r\n\r\n: a log\n\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
WELL = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"status": "ok"}'


def piece(offset: int, text: Any) -> bytes:
    return f"id: {offset}\ndata: {json.dumps(text)}\n\n".encode()


def end(complete: bool = True, **more: bool) -> bytes:
    told = json.dumps({"complete": complete, **more})
    return f"event: end\nid: 0\ndata: {told}\n\n".encode()


class Streams:
    """Answers one request on each connection, which ends with its answer.

    Attributes:
        url: Where it listens.
        answers: What comes next: bytes, or whoever talks to the client. The last comes again.
        asked: The targets of all requests for logs.
    """

    def __init__(self, *answers: bytes | Talk) -> None:
        self.url = ""
        self.answers = list(answers)
        self.asked: list[str] = []
        self.health: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += await stream.receive_some()
            target = request.split()[1].decode()
            with suppress(trio.BrokenResourceError):
                if target == "/health":
                    await stream.send_all(self.health.pop(0) if self.health else b"")
                    return
                self.asked.append(target)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if isinstance(answer, bytes):
                    await stream.send_all(answer)
                else:
                    await answer(stream)


@asynccontextmanager
async def streaming(*answers: bytes | Talk) -> AsyncGenerator[Streams]:
    """Serve on a free port for as long as the block lasts."""
    server = Streams(*answers)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        with trio.fail_after(200):
            yield server
        nursery.cancel_scope.cancel()


async def hang(stream: trio.SocketStream) -> None:
    """Say nothing until the client hangs up."""
    with suppress(trio.BrokenResourceError):
        await stream.receive_some()


def then_hang(said: bytes) -> Talk:
    """Say something, and then nothing until the client hangs up."""

    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(said)
        await hang(stream)

    return talk


async def drip(stream: trio.SocketStream) -> None:
    """Send a whole stream in parts of one byte each."""
    for byte in HEAD + piece(14, "grüße 🥟\n") + end():
        await stream.send_all(bytes([byte]))
