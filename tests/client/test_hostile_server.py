"""A server that means harm: none of its answers fills memory, takes for ever or misleads."""

import gzip
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from gyoza.client import (
    ApiError,
    AsyncGyozaClient,
    ClientError,
    GyozaClient,
    ServerUnreachable,
    UnexpectedAnswer,
)
from gyoza.client.answers import MAX_SENTENCE
from gyoza.client.call import SMALL

from .scripted import Answer, Scripted

Talk = Callable[[trio.SocketStream], Awaitable[None]]
Heartbeat = Callable[[str], Awaitable[Any]]
HEAD = b"HTTP/1.1 200 OK\r\n"
BEAT: dict[str, Any] = {"worker_id": "w", "resources": {}}


class Attacker:
    """Attributes: sent counts the bytes sent, gone is set when a client has hung up."""

    def __init__(self, talk: Talk) -> None:
        self.url = ""
        self.gone = trio.Event()
        self._talk = talk

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while not request.endswith(b"}"):  # hanging up on the rest would look like a break
                request += await stream.receive_some()
            with suppress(trio.BrokenResourceError):
                await self._talk(stream)
            self.gone.set()


@asynccontextmanager
async def attacking(talk: Talk) -> AsyncGenerator[Attacker]:
    attacker = Attacker(talk)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        attacker.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, attacker.serve, [listener])
        with trio.fail_after(200):
            yield attacker
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["blocking", "trio"])
def beat(request: pytest.FixtureRequest) -> Heartbeat:
    """Sends a heartbeat by a client that has no patience: by both, one after the other."""

    async def beat(url: str) -> Any:
        if request.param == "blocking":
            with GyozaClient(url, "key", timeout=0.3) as client:
                return await trio.to_thread.run_sync(lambda: client.heartbeat(**BEAT))
        async with AsyncGyozaClient(url, "key", timeout=0.3) as client:
            return await client.heartbeat(**BEAT)

    return beat


async def test_an_endless_answer_is_hung_up_on(beat: Heartbeat) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(HEAD + b"\r\n")
        while True:
            await stream.send_all(b"x" * 65536)

    async with attacking(talk) as attacker:
        with pytest.raises(UnexpectedAnswer, match=f"more than {SMALL} bytes"):
            await beat(attacker.url)
        await attacker.gone.wait()


async def test_an_answer_that_drips_for_ever_is_given_up(beat: Heartbeat) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(HEAD + b"\r\n")
        while True:
            await stream.send_all(b" ")
            await trio.sleep(0.01)

    async with attacking(talk) as attacker:
        with pytest.raises(ServerUnreachable, match=r"no whole answer within 0\.6 s"):
            await beat(attacker.url)
        await attacker.gone.wait()


async def test_a_head_that_drips_for_ever_is_given_up_by_the_client_for_trio() -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(HEAD + b"X-Header: ")
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.01)

    async with attacking(talk) as attacker:
        async with AsyncGyozaClient(attacker.url, timeout=0.3) as client:
            with pytest.raises(ServerUnreachable, match="no whole answer"):
                await client.heartbeat(**BEAT)
        await attacker.gone.wait()


async def test_a_client_is_as_good_as_before_once_it_has_given_up() -> None:
    answers = iter([HEAD + b"\r\n" + b"x" * (SMALL + 1), HEAD + b"Content-Length: 2\r\n\r\n{}"])

    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(next(answers))

    async with attacking(talk) as attacker, AsyncGyozaClient(attacker.url) as client:
        with pytest.raises(UnexpectedAnswer):
            await client.heartbeat(**BEAT)
        assert await client.heartbeat(**BEAT) == {}


async def test_a_compressed_answer_is_refused_since_it_could_be_a_bomb(
    beat: Heartbeat, server: Scripted
) -> None:
    bomb = gzip.compress(b"0" * 100_000_000)
    server.answers[:] = [Answer(bomb, headers={"Content-Encoding": "gzip"})]
    with pytest.raises(UnexpectedAnswer, match=r"compressed \(gzip\)"):
        await beat(server.url)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


async def test_a_compressed_log_is_refused_as_well(server: Scripted) -> None:
    server.answers[:] = [Answer(gzip.compress(b"x"), headers={"Content-Encoding": "gzip"})]
    with GyozaClient(server.url) as client, pytest.raises(ClientError, match="compressed"):
        list(client.follow_logs("r", patience_s=0))
    async with (
        AsyncGyozaClient(server.url) as client,
        aclosing(client.follow_logs("r", patience_s=0)) as log,
    ):
        with pytest.raises(ClientError, match="compressed"):
            await anext(log)


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b'{"states": 1e999999999}', b'"\\ud800"'],
    ids=["lists", "objects", "digits", "infinity", "half a character"],
)
async def test_json_that_is_a_trap_is_an_answer_that_makes_no_sense(
    beat: Heartbeat, server: Scripted, body: bytes
) -> None:
    server.answers[:] = [Answer(body)]
    with suppress(UnexpectedAnswer):
        assert await beat(server.url) == {"states": float("inf")}


@pytest.mark.parametrize("status", [400, 409, 503])
async def test_an_error_of_many_megabytes_is_not_read(
    beat: Heartbeat, server: Scripted, status: int
) -> None:
    server.answers[:] = [Answer({"detail": "x" * SMALL}, status)]
    with pytest.raises(UnexpectedAnswer, match="more than"):
        await beat(server.url)


async def test_an_error_cannot_write_to_the_terminal_or_fill_the_log(
    beat: Heartbeat, server: Scripted
) -> None:
    server.answers[:] = [Answer({"detail": "\x1b[2J\r\nINFO all is well\n" + "x" * 100_000}, 409)]
    with pytest.raises(ApiError) as caught:
        await beat(server.url)
    assert caught.value.detail.startswith(" [2J  INFO all is well x")
    assert len(caught.value.detail) == MAX_SENTENCE + 1
