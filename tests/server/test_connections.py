"""Connections: HTTP/1.1 and 1.0 over real sockets, how many there may be, and how they end."""

import json
import logging
import sqlite3
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from gyoza.server import ServerSettings, serve
from gyoza.server.http import Bounds, Seat, serve_http
from gyoza.server.http.admission import RESERVE, Admission
from gyoza.server.http.connection import Service
from gyoza.server.limits import Limits

from .api import KEY, Api, linked, serving, settings_in

BOUND_S = 200


async def connect(api: Api) -> trio.SocketStream:
    host, port = api.url.removeprefix("http://").split(":")
    return await trio.open_tcp_stream(host, int(port))


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    """Return all that comes until the server hangs up."""
    received = b""
    with trio.fail_after(BOUND_S):
        try:
            while part := await stream.receive_some():
                received += part
        except trio.BrokenResourceError:
            pass
    return received


async def say(api: Api, data: bytes) -> bytes:
    """Send bytes on a connection of their own, and return all that the server says."""
    async with await connect(api) as stream:
        with trio.fail_after(BOUND_S):
            await stream.send_all(data)
        return await all_of(stream)


def request(
    line: str, *headers: str, body: str = "", version: str = "1.1", key: str = KEY
) -> bytes:
    lines = [f"{line} HTTP/{version}", "Host: x", f"X-API-Key: {key}", *headers, "", body]
    return "\r\n".join(lines).encode()


CLOSE = "Connection: close"


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def test_requests_on_one_connection_are_answered_in_their_order(api: Api) -> None:
    both = request("GET /runs") + request("GET /health", CLOSE)
    answer = await say(api, both)
    first, second = answer.split(b"HTTP/1.1 200 ")[1:]
    assert b"has_more" in first
    assert b"version" in second


async def test_every_answer_tells_the_version(api: Api) -> None:
    for path in ("/health", "/runs", "/nope"):
        assert (await api.client.get(path)).headers["Gyoza-Version"]


async def test_a_client_of_http_1_0_gets_its_answer_and_the_end_of_the_connection(api: Api) -> None:
    run = await api.running()
    await api.post(f"/runs/{run}/logs", {"offset": 0, "data": "hello", "worker_id": "w1"})
    for path in ("/health", f"/runs/{run}/logs"):
        answer = await say(api, request(f"GET {path}", version="1.0"))
        assert status_of(answer) == 200
        assert b"transfer-encoding" not in answer.lower()
    assert answer.endswith(b"\r\n\r\nhello")


async def test_a_client_that_has_said_all_is_answered_all_the_same(api: Api) -> None:
    async with await connect(api) as stream:
        await stream.send_all(request("GET /runs"))
        await stream.send_eof()
        assert status_of(await all_of(stream)) == 200


async def test_the_target_may_be_a_whole_url(api: Api) -> None:
    for target in ("http://x/health?a=1", "https://y:1/health"):
        assert status_of(await say(api, request(f"GET {target}", CLOSE))) == 200
    assert status_of(await say(api, request("GET http://x", CLOSE))) == 307  # to /docs


async def test_the_head_of_an_answer_comes_without_its_body(api: Api) -> None:
    answer = await say(api, request("HEAD /docs", CLOSE))
    assert answer.endswith(b"\r\n\r\n")
    assert len(answer.split(b"\r\n\r\n")) == 2


async def test_a_client_that_asks_whether_to_send_its_body_is_told_to(api: Api) -> None:
    body = json.dumps({"image": "a"})
    head = request(
        "POST /runs",
        CLOSE,
        "Expect: 100-continue",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    async with await connect(api) as stream:
        await stream.send_all(head)
        with trio.fail_after(BOUND_S):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(body.encode())
        assert status_of(await all_of(stream)) == 201


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),  # without a host
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (request("GET /health", version="2.0"), 505),
        (request("GET /health", version="0.9"), 505),
        (request("CONNECT x:80"), 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS to a plain port
    ],
)
async def test_what_is_not_http_1_is_refused_in_a_sentence_and_the_connection_ends(
    api: Api, sent: bytes, status: int
) -> None:
    answer = await say(api, sent)
    assert status_of(answer) == status
    assert body_of(answer)["detail"].endswith(".")
    assert b"connection: close" in answer.lower()
    assert (await api.get("/health"))["status"] == "ok"


UPGRADES = [
    ("Upgrade: h2c", "HTTP2-Settings: A", "Connection: Upgrade, HTTP2-Settings"),
    ("Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 13"),
]


@pytest.mark.parametrize("headers", UPGRADES)
async def test_an_offer_of_another_protocol_is_not_taken(
    api: Api, headers: tuple[str, ...]
) -> None:
    async with await connect(api) as stream:
        await stream.send_all(request("GET /health", *headers))
        with trio.fail_after(BOUND_S):
            answer = await stream.receive_some()
    assert status_of(bytes(answer)) == 200
    assert b"upgrade" not in answer.lower()


@pytest.mark.parametrize("body", ["ZZ\r\nhello\r\n", "5\r\nhel"])
async def test_a_body_that_is_not_framed_as_http_says_is_400(api: Api, body: str) -> None:
    async with await connect(api) as stream:
        chunked = request("POST /runs", "Transfer-Encoding: chunked", body=body)
        await stream.send_all(chunked)
        await stream.send_eof()
        assert status_of(await all_of(stream)) == 400


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(BOUND_S):
        while not true():
            await wait_all_tasks_blocked(0.01)


async def test_a_connection_that_its_client_has_closed_is_let_go_at_once(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path), limits=Limits(idle_s=3600)) as api:
        run = await api.running()
        waiting = f"GET /runs/{run}?after_event=9&wait_s=60"
        for sent in (b"", b"GET /hea", request(waiting), request(f"GET /runs/{run}/logs?follow=1")):
            stream = await connect(api)
            await stream.send_all(sent)
            await wait_all_tasks_blocked(0.05)
            await stream.aclose()
        await until(lambda: _connections(api) <= 1)  # the client's own


def _connections(api: Api) -> int:
    port = int(api.url.rpartition(":")[2])
    ends = psutil.Process().net_connections("tcp")
    return sum(1 for end in ends if end.laddr and end.laddr.port == port and end.raddr)


async def send_without_end(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(b"x" * 65536)


async def test_a_client_that_sends_on_without_reading_is_let_go(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path), limits=Limits(idle_s=3600, send_s=0.5)) as api:
        run = await api.running()
        async with await connect(api) as stream:
            await stream.send_all(request(f"GET /runs/{run}?after_event=9&wait_s=60"))
            with trio.fail_after(BOUND_S), pytest.raises(trio.BrokenResourceError):
                await send_without_end(stream)
        assert (await api.get("/health"))["status"] == "ok"


async def test_strangers_who_say_nothing_make_room_for_those_who_come(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, max_connections=20, max_connections_per_address=0)
    async with serving(settings, limits=Limits(idle_s=3600)) as api:
        silent = [await connect(api) for _ in range(60)]
        assert (await api.client.get("/workers")).status_code == 200
        assert await all_of(silent[0]) == b""
        for stream in silent:
            await stream.aclose()


async def test_strangers_of_one_address_have_a_share(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, max_connections_per_address=5)
    async with serving(settings, limits=Limits(idle_s=3600)) as api:
        streams = [await connect(api) for _ in range(6)]
        assert await all_of(streams[0]) == b""  # the oldest
        await streams[5].send_all(request("GET /health", CLOSE))
        assert status_of(await all_of(streams[5])) == 200
        for stream in streams:
            await stream.aclose()


@asynccontextmanager
async def held(api: Api, number: int, key: str) -> AsyncGenerator[list[trio.SocketStream]]:
    """Hold connections whose requests are not answered yet."""
    streams = [await connect(api) for _ in range(number)]
    for stream in streams:
        await stream.send_all(request("GET /events?topic=t&wait_s=60", key=key))
    try:
        yield streams
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def key_of(api: Api, role: str, **more: str) -> str:
    return (await api.post("/keys", {"name": "a key", "role": role, **more}, 201))["key"]


async def test_one_key_has_a_share_of_the_connections(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, max_connections_per_key=5)
    async with serving(settings) as api:
        key = await key_of(api, "client")
        async with held(api, 5, key):
            await wait_all_tasks_blocked(0.05)
            refused = await say(api, request("GET /runs", CLOSE, key=key))
            assert (status_of(refused), b"retry-after" in refused) == (503, True)
            assert (await api.client.get("/runs")).status_code == 200  # with another key


async def test_a_connection_that_waits_makes_room_for_one_of_the_same_key(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path, max_connections_per_key=1)) as api:
        key = await key_of(api, "client")
        async with await connect(api) as first:
            await first.send_all(request("GET /health?") + request("GET /runs", key=key))
            with trio.fail_after(BOUND_S):
                while b"has_more" not in await first.receive_some():
                    pass
            answer = await say(api, request("GET /runs", CLOSE, key=key))
            assert status_of(answer) == 200
            assert await all_of(first) == b""


async def test_heartbeats_get_in_whatever_there_is(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, max_connections=12, max_connections_per_key=12)
    async with serving(settings) as api:
        key = await key_of(api, "worker", worker="w*")
        client = await key_of(api, "client")
        await api.client.aclose()
        async with held(api, 12, client):
            await wait_all_tasks_blocked(0.1)
            body = json.dumps({"worker_id": "w1", "resources": {}})
            headers = ("Content-Type: application/json", f"Content-Length: {len(body)}", CLOSE)
            beat = partial(request, "POST /workers/heartbeat", *headers, body=body)
            assert status_of(await say(api, beat(key=key))) == 200
            assert status_of(await say(api, request("GET /runs", CLOSE, key=client))) == 503
            assert status_of(await say(api, beat(key=key))) == 200


async def test_the_limit_of_open_files_bounds_the_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gyoza.descriptors.allowed", lambda: 256)
    caplog.set_level(logging.INFO, "gyoza")
    async with serving(settings_in(tmp_path, max_connections=5000)):
        assert "allows 160 connections, not 5000" in caplog.text
        assert "Up to 160 connections" in caplog.text


async def test_a_machine_that_lacks_something_for_a_connection_is_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    lacking: Any = _Lacking(listener)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    admission = Admission(Bounds(in_all=5, per_address=5, per_key=5))
    service = Service(app=app, admission=admission, idle_s=60, send_s=60)
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, service, [lacking], None, 1.0)
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 204
        nursery.cancel_scope.cancel()
    assert "No connection can be accepted (Too many open files)" in caplog.text


class _Lacking:
    """A listener on a machine that lacks descriptors for a while."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self._errors = [OSError(24, "Too many open files")]

    async def accept(self) -> trio.SocketStream:
        if self._errors:
            raise self._errors.pop()
        return await self._listener.accept()

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await self._listener.aclose()


@asynccontextmanager
async def application(app: Any) -> AsyncGenerator[str]:
    """Serve any ASGI application; yield its URL."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    admission = Admission(Bounds(in_all=50, per_address=50, per_key=50))
    service = Service(app=app, admission=admission, idle_s=60, send_s=60)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, service, listeners, None, 1.0)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_an_application_that_fails_ends_its_own_connection_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] != "/early":
            length = (b"content-length", b"10")
            await send({"type": "http.response.start", "status": 200, "headers": [length]})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
        if scope["path"] == "/never":
            return
        raise ExceptionGroup("several", [ValueError("nobody foresaw this")])

    async with application(app) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/early")).status_code == 500
        for path in ("/late", "/never"):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(path)
        assert (await client.get("/early")).status_code == 500
    failures = [r for r in caplog.records if "The server failed at GET" in r.getMessage()]
    assert len(failures) == 1  # one line for all of them in a while
    assert "nobody foresaw this" in failures[0].getMessage()
    caplog.clear()


async def test_what_breaks_outside_of_the_application_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise LookupError("nobody foresaw this")

    async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...

    async with application(app) as url, httpx.AsyncClient(base_url=url) as client:
        with monkeypatch.context() as patch:
            patch.setattr("gyoza.server.http.connection.scope_of", fail)
            for _ in range(3):
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get("/")
        assert (await client.get("/")).status_code == 500  # it has answered nothing
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "127.0.0.1 ends by LookupError" in record.getMessage()
    assert record.exc_info is None
    caplog.clear()


async def test_under_a_path_prefix_the_server_answers_with_and_without_it(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path, root_path="/gyoza")) as api:
        for prefix in ("/gyoza", ""):
            assert (await api.get(f"{prefix}/health"))["status"] == "ok"
            assert (await api.get(f"{prefix}/runs"))["data"] == []
        for path in linked((await api.client.get("/gyoza/docs")).text):
            assert (await api.client.get(f"/gyoza/{path}")).status_code == 200
        assert await api.detail("GET", "/gyozas/runs", 404)


@pytest.mark.parametrize("path", ["gyoza", "/", "/a b", "/a//b"])
def test_a_path_prefix_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(Exception, match="GYOZA_ROOT_PATH must be a path"):
        ServerSettings(root_path=path)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    authority: Any = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    path = tmp_path / "cert.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path, context


async def test_tls_offers_http_1_1_alone_and_bears_what_is_no_handshake(
    tmp_path: Path, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    path, context = certificate
    context.set_alpn_protocols(["h2", "http/1.1"])
    settings = settings_in(tmp_path, tls_certfile=str(path), tls_keyfile=str(path))
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve, settings)
        port = int(url.rpartition(":")[2])
        for garbage in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x00\x05hello",
            b"\xff" * 999,
        ):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(garbage or b"\0")
                await stream.send_eof()
                await all_of(stream)
        async with await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, ssl_context=context, https_compatible=True
        ) as secured:
            await secured.send_all(request("GET /runs", CLOSE))
            assert secured.selected_alpn_protocol() == "http/1.1"
            assert status_of(await all_of(secured)) == 200
        nursery.cancel_scope.cancel()


def test_a_full_reserve_is_closed_to_all() -> None:
    admission = Admission(Bounds(in_all=2, per_address=99, per_key=999))

    def admit() -> Seat:
        seat = admission.admit("a")
        assert seat
        return seat

    seats = [admit() for _ in range(2)]
    assert all(admission.begin(seat, "k", vital=False) for seat in seats)
    late = admit()
    for number in range(RESERVE):
        late = late if number == 0 else admit()
        assert not admission.begin(late, "k", vital=False)
        assert admission.begin(late, "k", vital=True)
    assert admission.admit("a") is None
    admission.wait(late)
    assert admission.admit("b")  # in place of the one that waits
    assert late.scope.cancel_called
    admission.wait(late)  # too late
    for seat in seats * 2:
        admission.leave(seat)
    assert not admission.full or admission.make_room()


async def test_readiness_tells_whether_writes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gyoza.server.store.database.BUSY_TIMEOUT_MS", 1)
    async with serving(settings_in(tmp_path)) as api:
        assert (await api.get("/readyz"))["status"] == "ok"
        with closing(sqlite3.connect(tmp_path / "server.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await api.detail("POST", "/runs", 503, json={"image": "a"})
            assert "locked" in await api.detail("GET", "/readyz", 503)
            assert (await api.get("/health"))["status"] == "ok"
        await api.submit()
        assert (await api.get("/readyz"))["status"] == "ok"
        monkeypatch.setattr("gyoza.server.routes.health.LATE", -(10**9))
        assert "last write" in await api.detail("GET", "/readyz", 503)
    caplog.clear()


async def test_questions_for_the_health_have_a_rate_of_their_own(tmp_path: Path) -> None:
    limits = Limits(health_rate=1, burst_s=3, rate=0, at_once=0)
    async with serving(settings_in(tmp_path), limits=limits) as api:
        asked = [(await api.client.get("/health")).status_code for _ in range(10)]
        assert asked[:3] == [200] * 3  # though nobody has a turn
        assert 429 in asked
        assert (await api.beat())["lease_s"]
