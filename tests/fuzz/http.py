"""Target: whatever is sent to the server's port, plain or by TLS, ends its own connection at most.

An input is two bytes that say how it is sent, and what is sent.
"""

import atexit
import logging
import re
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import trio
import trustme

from gyoza.server import ServerSettings, serve
from gyoza.server.limits import Limits
from tests.fuzz.target import Target, cut

KEY = b"the-key"
HURRY_S = 0.05
"""Seconds that are waited for an answer which may never come."""

TLS, RAW, HALF, RESET, CLOSED = 1, 2, 4, 8, 16
"""To the port for TLS; without a handshake; shutting down after it; hanging up hard; at once."""

THREAD = "fuzzed server"

ANSWER = re.compile(rb"HTTP/1\.1 [1-5]\d\d ")
PATIENT_S = 90.0


class _Live:
    """A server on two ports, in a thread of its own that ends with the process."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.errors: list[str] = []
        authority: Any = trustme.CA()
        self.tls = ssl.create_default_context()
        authority.configure_trust(self.tls)
        self._folder = tempfile.TemporaryDirectory()
        certificate = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        certificate.write_to_path(Path(self._folder.name) / "cert.pem")
        self._ready = threading.Event()
        self._end: trio.CancelScope | None = None
        self._thread = threading.Thread(
            target=trio.run, args=(self._serve,), name=THREAD, daemon=True
        )
        self._collector = _Collector(self.errors)
        logging.getLogger("gyoza.server").addHandler(self._collector)
        self._thread.start()
        assert self._ready.wait(PATIENT_S)
        atexit.register(self.close)

    async def _serve(self) -> None:
        folder = Path(self._folder.name)
        plain = ServerSettings(port=0, api_key=KEY.decode(), rate_limit=0)
        cert = str(folder / "cert.pem")
        secured = replace(plain, tls_certfile=cert, tls_keyfile=cert)
        limits = Limits(idle_s=5.0, rate=0.0, health_rate=0.0)
        self._trio = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._end = nursery.cancel_scope
            for number, settings in enumerate((plain, secured)):
                url = f"sqlite:///{folder / str(number)}.sqlite3"
                settings = replace(settings, database_url=url)
                where: str = await nursery.start(partial(serve, settings, limits=limits))
                self.ports.append(int(where.rpartition(":")[2]))
            self._ready.set()

    def close(self) -> None:
        """End the server and its thread."""
        if self._end and self._thread.is_alive():
            self._trio.run_sync_soon(self._end.cancel)
            self._thread.join(PATIENT_S)
        logging.getLogger("gyoza.server").removeHandler(self._collector)
        self._folder.cleanup()


class _Collector(logging.Handler):
    """Keeps what the server says about itself that no client should be able to bring about."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        if record.threadName == THREAD:  # in a test, other servers may share the process
            self._errors.append(record.getMessage())


@cache
def _live() -> _Live:
    return _Live()


def end_server() -> None:
    """End the server with all that it has told; the next check starts another one."""
    _live().close()
    _live.cache_clear()


def check_http(data: bytes) -> None:
    """The server lives, says nothing of an error, and answers in HTTP or not at all."""
    live = _live()
    how, size, sent = data[:1], data[1:2], data[2:]
    flags = how[0] if how else 0
    received = b""
    with suppress(OSError), _connected(live, flags) as connection:
        for block in cut(sent, size) if size and size[0] else [sent]:
            connection.sendall(block)
        received = _rest_of(connection, flags)
    assert not received or flags & RAW or ANSWER.match(received), received[:200]
    assert b" 500 " not in received[:14], received[:200]
    assert _is_healthy(live)
    assert not live.errors, live.errors


@contextmanager
def _connected(live: _Live, flags: int) -> Generator[socket.socket]:
    address = ("127.0.0.1", live.ports[flags & TLS])
    with socket.create_connection(address, PATIENT_S) as plain:
        if not flags & TLS or flags & RAW:
            yield plain
        else:
            with live.tls.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                yield secured


def _rest_of(connection: socket.socket, flags: int) -> bytes:
    """Return what the server answers, unless this client leaves in a hurry."""
    received = b""
    if flags & RESET:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if flags & CLOSED:
        return received
    if flags & HALF and not isinstance(connection, ssl.SSLSocket):
        connection.shutdown(socket.SHUT_WR)
    connection.settimeout(HURRY_S)
    with suppress(TimeoutError):
        while block := connection.recv(65536):
            received += block
    return received


def _is_healthy(live: _Live) -> bool:
    with socket.create_connection(("127.0.0.1", live.ports[0]), PATIENT_S) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        received = b""
        while block := connection.recv(65536):
            received += block
    return received.startswith(b"HTTP/1.1 200 ")


def _request(line: bytes, *headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    lines = [line + b" HTTP/" + version, b"Host: x", b"X-API-Key: " + KEY, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _json(body: bytes) -> tuple[bytes, bytes]:
    return b"Content-Type: application/json", b"Content-Length: %d" % len(body)


_BODY = b'{"image": "a"}'
_HALF = bytes([HALF, 0])
_WEBSOCKET = (b"Upgrade: websocket", b"Connection: upgrade", b"Sec-WebSocket-Version: 13")
_SEEDS = (
    _HALF + _request(b"GET /runs"),
    _HALF + _request(b"POST /runs", *_json(_BODY), body=_BODY),
    bytes([HALF, 7]) + _request(b"POST /runs", *_json(_BODY), body=_BODY),
    bytes([TLS, 0]) + _request(b"GET /health", b"Connection: close"),
    bytes([TLS | RAW, 0]) + _request(b"GET /health"),
    bytes([TLS | RAW, 3]) + b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"x" * 40,
    _HALF + _request(b"HEAD /health", version=b"1.0"),
    _HALF + b"GET /health HTTP/1.0\r\n\r\nzz",
    _HALF + _request(b"GET /health") * 3,
    _HALF + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    _HALF + _request(b"GET /", b"Upgrade: h2c", b"HTTP2-Settings: A", b"Connection: upgrade"),
    _HALF + _request(b"GET /health", *_WEBSOCKET, body=b"\xff" * 50),
    _HALF + _request(b"CONNECT x:1"),
    _HALF + _request(b"GET http://x/health"),
    _HALF + _request(b"OPTIONS *"),
    _HALF + _request(b"POST /runs", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    _HALF + _request(b"POST /runs", b"Transfer-Encoding: chunked", body=b"ZZ\r\n"),
    _HALF + _request(b"POST /runs", b"Expect: 100-continue", *_json(_BODY), body=_BODY),
    b"\0\0" + _request(b"POST /runs", b"Expect: 100-continue", b"Content-Length: 9"),
    _HALF + _request(b"POST /runs", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    _HALF + _request(b"GET /runs/%ff%00/logs?follow=true&offset=\xc3"),
    bytes([RESET, 0]) + _request(b"GET /events?topic=t&wait_s=9"),
    bytes([CLOSED, 0]) + _request(b"GET /docs"),
    b"\0\0\0\xff\r\n\r\n",
)

HTTP = Target(check_http, _SEEDS, longest=2048)
