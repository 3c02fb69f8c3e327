"""The proxy that a chaos run breaks connections with."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from tests.chaos.lines import read_line
from tests.chaos.proxy import Proxy, open_proxy


@dataclass
class Echo:
    """A server that answers each line with itself."""

    proxy: Proxy
    heard: list[bytes] = field(default_factory=list[bytes])
    hears: trio.Event = field(default_factory=trio.Event)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.proxy.port)

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            while True:
                try:
                    line = await read_line(stream)
                except trio.BrokenResourceError:
                    return
                if line is None:
                    return
                self.heard.append(line)
                self.hears.set()
                await stream.send_all(line + b"\n")


@asynccontextmanager
async def echo() -> AsyncGenerator[Echo]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listeners[0].socket.getsockname()[1]
        with trio.fail_after(200):
            async with open_proxy(port) as proxy:
                server = Echo(proxy)
                nursery.start_soon(trio.serve_listeners, server.serve, listeners)
                yield server
        nursery.cancel_scope.cancel()


async def ask(stream: trio.SocketStream, line: bytes) -> bytes | None:
    await stream.send_all(line + b"\n")
    return await read_line(stream)


async def test_what_comes_is_relayed_in_both_directions() -> None:
    async with echo() as server, await server.connect() as stream:
        assert await ask(stream, b"one") == b"one"
        assert await ask(stream, b"two") == b"two"


async def test_an_end_on_one_side_is_an_end_on_the_other() -> None:
    async with echo() as server:
        async with await server.connect() as stream:
            await stream.send_all(b"unfinished")
            await stream.send_eof()
            assert await stream.receive_some() == b""
        assert server.heard == []


async def test_dropping_breaks_every_connection_and_spares_the_next() -> None:
    async with echo() as server:
        async with await server.connect() as stream:
            await ask(stream, b"one")
            assert server.proxy.drop() == 1
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        async with await server.connect() as stream:
            assert await ask(stream, b"two") == b"two"


async def test_an_answer_is_cut_after_the_request_has_arrived() -> None:
    async with echo() as server:
        server.proxy.cuts_answers = True
        async with await server.connect() as stream:
            with pytest.raises(trio.BrokenResourceError):
                await ask(stream, b"one")
        assert server.heard == [b"one"]
        assert server.proxy.cut == 1
        server.proxy.heal()
        async with await server.connect() as stream:
            assert await ask(stream, b"two") == b"two"


async def test_what_is_held_back_arrives_once_the_network_is_whole_again() -> None:
    async with echo() as server, await server.connect() as stream:
        await ask(stream, b"one")
        server.proxy.part()
        await stream.send_all(b"two\n")
        async with await server.connect() as another:
            await another.send_all(b"three\n")
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert server.heard == [b"one"]
            server.proxy.heal()
            assert await read_line(stream) == b"two"
            assert await read_line(another) == b"three"


async def test_a_server_that_is_down_is_a_connection_that_ends() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    with trio.fail_after(200):
        async with (
            open_proxy(port) as proxy,
            await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream,
        ):
            assert await stream.receive_some() == b""


async def test_a_delay_holds_request_and_answer_back(mock_clock: MockClock) -> None:
    async with echo() as server, await server.connect() as stream, trio.open_nursery() as nursery:
        server.proxy.delay_s = 2.0
        began = trio.current_time()

        async def pass_time() -> None:
            while True:
                await trio.testing.wait_all_tasks_blocked(0.01)
                mock_clock.jump(0.25)

        nursery.start_soon(pass_time)
        assert await ask(stream, b"one") == b"one"
        assert trio.current_time() - began >= 4.0
        nursery.cancel_scope.cancel()
