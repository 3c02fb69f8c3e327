"""Noise on a port: callers without a key who send what is no request, or nearly one."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import trio

CALLERS = 40
PATIENCE_S = 3.0
BLOCK = 65536
WRECKED = 0.3
"""In this part of the almost requests a few bytes are others."""

ENDINGS = ("goes", "is done", "waits")
"""What a caller does that has sent everything."""

_CHUNKED = b"POST /runs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

REQUESTS = (
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
    b"GET /runs HTTP/1.1\r\nHost: x\r\nX-API-Key: wrong\r\n\r\n",
    b"GET /runs HTTP/1.1\r\nHost: x\r\nX-API-Key: \xff\xfe\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.0\r\n\r\n",
    b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%ff%00/../..//% HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET " + b"/x" * 30_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\n folded: yes\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nNul: \x00\r\n\r\n",
    b"GET /health HTTP/1.1\nHost: x\n\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nExpect: the worst\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    b"POST /runs HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
    b"POST /runs HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\nhello",
    b"POST /runs HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /runs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
    b"POST /runs HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nhello",
    b"POST /runs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    _CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    _CHUNKED + b"no number\r\nhello\r\n0\r\n\r\n",
    _CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    _CHUNKED + b"5\r\nhello and more\r\n0\r\n\r\n",
    _CHUNKED + b"5\r\nhello\r\n0\r\nTrailer: x\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    b"\r\n" * 5_000,
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"*1\r\n$4\r\nPING\r\n",
)


class Noise:
    """Many callers at a port.

    Attributes:
        busy: Held by the one fault at a time that makes noise.
    """

    def __init__(self, port: int) -> None:
        self.busy = trio.Lock()
        self._port = port
        self._calls = 0
        self._answers: Counter[int] = Counter()

    async def make(self, seed: int, lasts_s: float) -> tuple[int, Counter[int]]:
        """Call, all callers at once and each again and again, for so many seconds.

        Returns:
            How many connections were made, and how often each HTTP status came.
        """
        self._calls, self._answers = 0, Counter()
        with trio.move_on_after(lasts_s):
            async with trio.open_nursery() as nursery:
                for number in range(CALLERS):
                    nursery.start_soon(self._call_on, random.Random(f"{seed} {number}"))
        return self._calls, self._answers

    async def _call_on(self, rng: random.Random) -> None:
        while True:
            words, ending = what_is_sent(rng), rng.choice(ENDINGS)
            pause_s = rng.uniform(0.0, 0.3)
            with suppress(OSError, trio.BrokenResourceError):
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
                self._calls += 1
                async with stream:
                    await self._call(stream, words, ending, pause_s)
            await trio.sleep(pause_s)

    async def _call(
        self, stream: trio.SocketStream, words: list[bytes], ending: str, pause_s: float
    ) -> None:
        with trio.move_on_after(PATIENCE_S):
            for piece in words:
                await stream.send_all(piece)
                await trio.sleep(pause_s)
            if ending == "goes":
                return
            if ending == "is done":
                await stream.send_eof()
            while data := await stream.receive_some(BLOCK):
                self._count(data)

    def _count(self, data: bytes) -> None:
        head, _, rest = data.partition(b" ")
        if head in (b"HTTP/1.1", b"HTTP/1.0") and rest[:3].isdigit():
            self._answers[int(rest[:3])] += 1


def what_is_sent(rng: random.Random) -> list[bytes]:
    """Draw what one caller sends, in pieces."""
    draw: Callable[[random.Random], bytes] = rng.choice((_garbage, _almost, _almost))
    words = draw(rng)
    cuts = sorted(rng.randrange(len(words) + 1) for _ in range(rng.randrange(3)))
    return [words[i:j] for i, j in zip([0, *cuts], [*cuts, len(words)], strict=True)]


def _garbage(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((1, 16, 300, 5_000, 60_000)))


def _almost(rng: random.Random) -> bytes:
    words = bytearray(rng.choice(REQUESTS))
    if rng.random() < WRECKED:
        for _ in range(rng.randrange(1, 5)):
            words[rng.randrange(len(words))] = rng.randrange(256)
    return bytes(words)
