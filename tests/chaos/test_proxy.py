"""The proxy that a chaos run breaks connections with."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from tests.chaos.faults import PAGES
from tests.chaos.foreign import WEB_SERVER_IS_DOWN, Page
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


async def fetch(stream: trio.SocketStream, request: bytes) -> bytes:
    """Send a request and return all that comes until the end."""
    await stream.send_all(request)
    answer = b""
    while block := await stream.receive_some():
        answer += block
    return answer


REQUEST = b"POST /workers/heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda page: str(page.status))
async def test_a_page_answers_every_request_and_the_server_hears_of_none(page: Page) -> None:
    async with echo() as server, await server.connect() as before:
        await ask(before, b"one")
        server.proxy.page = page
        async with await server.connect() as later:
            for stream in (before, later):
                head, _, text = (await fetch(stream, REQUEST)).partition(b"\r\n\r\n")
                assert head.startswith(f"HTTP/1.1 {page.status} {page.reason}\r\n".encode())
                assert b"text/html" in head
                assert text.decode() == page.text
        assert server.heard == [b"one"]
        server.proxy.heal()
        async with await server.connect() as stream:
            assert await ask(stream, b"two") == b"two"


async def test_a_page_waits_for_the_end_of_the_request() -> None:
    async with echo() as server, await server.connect() as stream:
        server.proxy.page = WEB_SERVER_IS_DOWN
        await stream.send_all(REQUEST[:-1])
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await fetch(stream, REQUEST[-1:])).startswith(b"HTTP/1.1 521 ")


@pytest.mark.parametrize("words", [b"the rest of a request\r\n\r\n", REQUEST[:-1]])
async def test_what_is_no_whole_request_gets_no_page(words: bytes) -> None:
    async with echo() as server, await server.connect() as stream:
        server.proxy.page = WEB_SERVER_IS_DOWN
        await stream.send_all(words)
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_only_quiet_connections_are_dropped_where_these_are_meant(
    mock_clock: MockClock,
) -> None:
    async with echo() as server, await server.connect() as quiet, await server.connect() as busy:
        await ask(quiet, b"one")
        await ask(busy, b"two")
        mock_clock.jump(1.5)
        await ask(busy, b"three")
        assert server.proxy.drop(2.0) == 0
        mock_clock.jump(1.0)
        assert server.proxy.drop(2.0) == 1
        with pytest.raises(trio.BrokenResourceError):
            await quiet.receive_some()
        assert await ask(busy, b"four") == b"four"


async def test_it_is_noted_when_connections_are_made() -> None:
    async with echo() as server:
        began = time.time()
        async with await server.connect() as stream:
            await ask(stream, b"one")
        [called] = server.proxy.calls
        assert began <= called <= time.time()


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
