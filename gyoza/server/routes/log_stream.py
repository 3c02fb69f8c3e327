"""The stream of a log: text as it is, or server-sent events that tell where it is and how it ends.

Each piece is read, and made ready to be sent, in a thread; a stream holds one of them at a time, so
that a reader may be as slow as he likes and a log as long.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol

import trio
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection
from starlette.types import Send

from gyoza.server.errors import NotFound
from gyoza.server.service import Service
from gyoza.server.store.logs import Hearing, LogPage, LogState, read_log
from gyoza.server.wakeups import Watch, run_key

TEXT, EVENTS = "text/plain", "text/event-stream"
ATTEMPT = "Gyoza-Attempt"
"""The header that names the attempt, so that a reader who was cut off goes on with the same one."""

PING_S = 15.0
"""Seconds without anything to say after which a stream of events shows that it is alive."""

CONFIRM_S = 1.0
"""Seconds until a log that seems to stay incomplete is told to: a server that stood still learns of
that by its next look at the leases, and then waits for the workers to come back."""


class Form(Protocol):
    """How a log is written."""

    media_type: str
    opening: bytes
    ping: bytes

    def piece(self, page: LogPage) -> bytes:
        """Return a piece of text."""
        ...

    def end(self, page: LogPage) -> bytes:
        """Return what says that no more comes."""
        ...


class _AsText:
    media_type, opening, ping = TEXT, b"", b""

    def piece(self, page: LogPage) -> bytes:
        return page.data

    def end(self, page: LogPage) -> bytes:
        return b""


class _AsEvents:
    media_type, opening, ping = EVENTS, b": a log\n\n", b": ping\n\n"

    def piece(self, page: LogPage) -> bytes:
        text = json.dumps(page.data.decode(errors="replace"), ensure_ascii=False)
        return f"id: {page.end}\ndata: {text}\n\n".encode()

    def end(self, page: LogPage) -> bytes:
        told = {"complete": page.state is LogState.COMPLETE}
        if page.state is LogState.UNDER_WAY:
            told["under_way"] = True
        return f"event: end\nid: {page.end}\ndata: {json.dumps(told)}\n\n".encode()


AS_TEXT: Form = _AsText()
AS_EVENTS: Form = _AsEvents()


@dataclass(frozen=True)
class LogAsked:
    """What somebody wants to read.

    Attributes:
        attempt: Of the run.
        offset: Bytes before what he wants.
        follow: Go on while the attempt is under way.
    """

    run_id: str
    attempt: int
    offset: int
    follow: bool


class _Cut(Exception):
    """The server ends, or the run is gone: whoever reads must not take this for the end."""


class LogResponse(StreamingResponse):
    """A log as it comes; it ends with its reader."""

    def __init__(self, service: Service, form: Form, asked: LogAsked) -> None:
        headers = {
            ATTEMPT: str(asked.attempt),
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # nginx would keep text back until it has a lot of it
        }
        self._pieces = _stream(service, form, asked)
        super().__init__(self._pieces, headers=headers, media_type=form.media_type)

    async def stream_response(self, send: Send) -> None:
        """Send the pieces; let go of them too when the reader leaves in the middle."""
        async with aclosing(self._pieces):
            with suppress(_Cut):  # without its last message the connection ends with the answer
                await super().stream_response(send)


async def _stream(service: Service, form: Form, asked: LogAsked) -> AsyncGenerator[bytes, None]:
    offset, doubted = asked.offset, False
    yield form.opening
    with service.wakeups.watch(run_key(asked.run_id)) as news:
        while True:
            piece, page = await _read(service, form, asked, offset)
            if page.data:
                offset, doubted = page.end, False
                yield piece
            elif _is_end(page.state, asked.follow) and (
                doubted or page.state is not LogState.INCOMPLETE
            ):
                yield form.end(page)
                return
            elif service.wakeups.closed:
                raise _Cut
            elif page.state is LogState.INCOMPLETE:
                doubted = True
                await _wait(news, CONFIRM_S)
            elif await _wait(news, PING_S):
                yield form.ping


def _is_end(state: LogState, follow: bool) -> bool:
    return state is not LogState.AWAITED and not (follow and state is LogState.UNDER_WAY)


async def _wait(news: Watch, wait_s: float) -> bool:
    """Wait for news; return whether none came in time."""
    deadline = trio.current_time() + wait_s
    await news.interrupts(trio.sleep_forever, deadline)
    return trio.current_time() >= deadline


async def _read(
    service: Service, form: Form, asked: LogAsked, offset: int
) -> tuple[bytes, LogPage]:
    leases = service.leases
    hearing = Hearing(service.clock(), leases.heard_since, service.heard_since)

    def look(conn: Connection) -> tuple[bytes, LogPage]:
        page = read_log(conn, asked.run_id, asked.attempt, offset, hearing)
        return form.piece(page), page

    try:
        return await service.database.read(look)
    except NotFound as gone:
        raise _Cut from gone
