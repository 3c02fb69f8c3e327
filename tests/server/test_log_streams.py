"""Log streams: events that tell where they are, and when a log is said to have ended."""

import json
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from gyoza.server.routes import log_stream
from gyoza.server.store import logs
from gyoza.server.store.database import Database
from gyoza.server.store.logs import PIECE_BYTES, Hearing, LogState
from gyoza.server.store.schema import UPGRADES
from gyoza.server.wakeups import Wakeups, Watch

from .api import Api, Json, raw_request, serving, settings_in

ME: Json = {"worker_id": "w1", "attempt": 1}
OPENING = ": a log"
WHOLE, SHORT = {"complete": True}, {"complete": False}


@dataclass(frozen=True)
class Event:
    kind: str
    id: int
    data: Any


async def append(api: Api, run: str, offset: int, data: str, **more: Any) -> int:
    body = {"offset": offset, "data": data, **ME, **more}
    return (await api.post(f"/runs/{run}/logs", body))["offset"]


async def marking(api: Api) -> str:
    """Return a run of a worker that says when a log is whole, with a line of log."""
    await api.beat(marks_log_end=True)
    run = await api.running()
    await append(api, run, 0, "one\n")
    return run


@asynccontextmanager
async def stream(
    api: Api, run: str, headers: dict[str, str] | None = None, **params: Any
) -> AsyncGenerator[httpx.Response]:
    accept = {"Accept": "text/event-stream", **(headers or {})}
    with trio.fail_after(200):
        async with api.client.stream(
            "GET", f"/runs/{run}/logs", params=params, headers=accept
        ) as response:
            assert response.status_code == 200
            yield response


async def events_of(response: httpx.Response) -> AsyncIterator[Event | str]:
    """Yield events, and comments as text."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield line
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            data = json.loads(fields["data"])
            yield Event(fields.get("event", "message"), int(fields["id"]), data)
            fields = {}


async def read(
    api: Api, run: str, headers: dict[str, str] | None = None, **params: Any
) -> list[Event | str]:
    async with stream(api, run, headers, **params) as response:
        return [event async for event in events_of(response)]


async def test_each_piece_tells_the_offset_after_it_and_the_last_event_is_the_end(
    api: Api,
) -> None:
    run = await api.running()
    await append(api, run, 0, 'grüße\n"\r\n\0')
    await api.event(run, "COMPLETED", **ME)
    async with stream(api, run) as response:
        headers = {**response.headers}
        told = [event async for event in events_of(response)]
    assert told == [
        OPENING,
        Event("message", 12, 'grüße\n"\r\n\0'),
        Event("end", 12, WHOLE),
    ]
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert headers["gyoza-attempt"] == "1"


async def test_plain_text_is_kept_back_by_no_proxy_either(api: Api) -> None:
    run = await api.running()
    response = await api.client.get(f"/runs/{run}/logs")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"


async def test_a_stream_goes_on_at_an_offset_or_else_at_the_last_event_that_was_seen(
    api: Api,
) -> None:
    run = await api.running()
    await append(api, run, 0, "0123456789")
    await api.event(run, "COMPLETED", **ME)
    for headers, params, text in (
        ({}, {"offset": 3}, "3456789"),
        ({"Last-Event-ID": "4"}, {}, "456789"),
        ({"Last-Event-ID": "4"}, {"offset": 8}, "89"),
    ):
        _, piece, end = await read(api, run, headers, **params)
        assert (piece, end) == (Event("message", 10, text), Event("end", 10, WHOLE))
    assert await read(api, run, offset=10) == [OPENING, Event("end", 10, WHOLE)]
    await api.detail("GET", f"/runs/{run}/logs", 422, headers={"Last-Event-ID": "x"})


@pytest.mark.parametrize("end", ["", "x", "xx", "xxx"])
async def test_a_long_text_comes_in_pieces_of_bounded_size_and_of_whole_characters(
    api: Api, end: str
) -> None:
    text = end + "🥟" * (PIECE_BYTES // 2) + end
    run = await api.running()
    params = {"offset": 0, **ME}
    await api.ask("PUT", f"/runs/{run}/logs", content=text.encode(), params=params)
    await api.event(run, "COMPLETED", **ME)
    _, *pieces, _ = await read(api, run)
    assert "".join(piece.data for piece in pieces if isinstance(piece, Event)) == text
    sizes = [len(piece.data.encode()) for piece in pieces if isinstance(piece, Event)]
    assert max(sizes) <= PIECE_BYTES
    assert min(sizes[:-1]) > PIECE_BYTES - 4
    for at in (len(end.encode()) + 4, PIECE_BYTES + len(end.encode())):
        whole = await api.client.get(f"/runs/{run}/logs", params={"offset": at})
        assert whole.content == text.encode()[at:]


async def test_many_small_chunks_come_together(api: Api) -> None:
    run = await api.running()
    offset = 0
    for number in range(40):
        offset = await append(api, run, offset, f"line {number}\n")
    await api.event(run, "COMPLETED", **ME)
    _, piece, _ = await read(api, run)
    assert isinstance(piece, Event)
    assert piece.data == "".join(f"line {number}\n" for number in range(40))


async def test_what_is_no_utf8_since_somebody_repeated_another_text_comes_all_the_same(
    api: Api,
) -> None:
    run = await api.running()
    await append(api, run, 0, "a")
    await append(api, run, 0, "ö" * PIECE_BYTES)
    await api.event(run, "COMPLETED", **ME)
    _, first, *rest, end = await read(api, run)
    assert isinstance(first, Event)
    assert first.data.startswith("a\N{REPLACEMENT CHARACTER}ö")
    assert rest
    assert end == Event("end", 2 * PIECE_BYTES, WHOLE)


async def test_chunks_of_an_earlier_version_may_be_large(tmp_path: Path) -> None:
    text = "öä" * PIECE_BYTES
    async with serving(settings_in(tmp_path)) as api:
        run = await api.running()
        await append(api, run, 0, "x")
        await api.event(run, "COMPLETED", **ME)
    with closing(sqlite3.connect(tmp_path / "server.sqlite3")) as connection, connection:
        data = text.encode()
        connection.execute("UPDATE log_chunks SET data = ?, end = ?", (data, len(data)))
        connection.execute("UPDATE attempts SET log_bytes = ?", (len(data),))
    async with serving(settings_in(tmp_path)) as api:
        _, *pieces, _ = await read(api, run)
    assert "".join(piece.data for piece in pieces if isinstance(piece, Event)) == text
    assert len(pieces) > 3


async def test_a_followed_log_comes_as_it_is_written(api: Api) -> None:
    run = await api.running()
    async with stream(api, run, follow=True) as response:
        told = events_of(response)
        assert await anext(told) == OPENING
        await append(api, run, 0, "one")
        assert await anext(told) == Event("message", 3, "one")
        await append(api, run, 3, "two")
        assert await anext(told) == Event("message", 6, "two")
        await api.event(run, "COMPLETED", **ME)
        assert [event async for event in told] == [Event("end", 6, WHOLE)]


async def test_of_an_attempt_under_way_there_is_what_there_is(api: Api) -> None:
    run = await marking(api)
    *_, end = await read(api, run)
    assert end == Event("end", 4, {"complete": False, "under_way": True})


async def test_a_stream_that_has_nothing_to_say_shows_that_it_is_alive(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "PING_S", 0.01)
    run = await api.running()
    said, over = b"", False
    async with stream(api, run, follow=True) as response:
        async for part in response.aiter_bytes():
            said += part
            if not over and said.count(b": ping\n\n") >= 3:
                over = bool(await api.event(run, "COMPLETED", **ME))
    assert said.endswith(b'event: end\nid: 0\ndata: {"complete": true}\n\n')


# When a log has ended.


async def unfinished(api: Api) -> str:
    """Return a run that is over, while its worker has not said that its log is whole."""
    run = await marking(api)
    await api.event(run, "COMPLETED", **ME)
    return run


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("plain", [True, False])
async def test_the_rest_of_a_log_is_waited_for_after_the_end_of_the_attempt(
    api: Api, follow: bool, plain: bool
) -> None:
    run = await unfinished(api)
    async with stream(api, run, follow=follow) as response:
        told = events_of(response)
        assert await anext(told) == OPENING
        assert await anext(told) == Event("message", 4, "one\n")
        await append(api, run, 4, "two\n")
        assert await anext(told) == Event("message", 8, "two\n")
        if plain:
            params = {"offset": 8, "final": True, **ME}
            await api.ask("PUT", f"/runs/{run}/logs", content=b"three\n", params=params)
        else:
            await append(api, run, 8, "three\n", final=True)
        assert [event async for event in told] == [
            Event("message", 14, "three\n"),
            Event("end", 14, WHOLE),
        ]
    assert (await api.client.get(f"/runs/{run}/logs")).text == "one\ntwo\nthree\n"


async def test_the_last_word_may_come_before_the_attempt_ends_and_without_text(api: Api) -> None:
    run = await marking(api)
    assert await append(api, run, 4, "", final=True) == 4
    await api.event(run, "COMPLETED", **ME)
    assert (await read(api, run))[-1] == Event("end", 4, WHOLE)


async def test_a_last_word_that_comes_late_does_not_count(api: Api) -> None:
    run = await unfinished(api)
    await append(api, run, 0, "one", final=True)
    async with stream(api, run) as response:
        told = events_of(response)
        for _ in range(2):
            await anext(told)
        await append(api, run, 0, "one\n", final=True)
        assert [event async for event in told] == [Event("end", 4, WHOLE)]


async def test_only_its_worker_says_that_a_log_is_whole(api: Api) -> None:
    run = await unfinished(api)
    body = {"offset": 4, "data": "", "final": True}
    for change in ({"worker_id": "w2"}, {"attempt": 2}):
        await api.detail("POST", f"/runs/{run}/logs", 409, json=body | ME | change)
    await api.detail("POST", f"/runs/{run}/logs", 422, json=body | {"final": "yes"})


async def never_begun(api: Api) -> str:
    run = await api.submit()
    await api.post(f"/runs/{run}/cancel")
    return run


async def claimed_and_cancelled_before_it_began(api: Api) -> str:
    run = await api.submit()
    await api.beat(marks_log_end=True)
    assert [r["id"] for r in await api.claim()] == [run]
    await api.post(f"/runs/{run}/cancel")
    return run


async def run_by_hand(api: Api) -> str:
    run = await api.submit()
    await api.event(run, "STARTED")
    await api.event(run, "COMPLETED")
    return run


async def followed_by_another_attempt(api: Api) -> str:
    run = await unfinished_and_failed(api)
    assert [r["id"] for r in await api.claim()] == [run]
    return run


async def unfinished_and_failed(api: Api) -> str:
    await api.beat(marks_log_end=True)
    run = await api.running(retry_policy={"max_attempts": 2})
    await api.event(run, "FAILED", **ME)
    return run


async def of_a_worker_that_never_says_so(api: Api) -> str:
    run = await api.running()
    await api.event(run, "COMPLETED", **ME)
    return run


async def of_a_worker_that_did_not_say_so_then(api: Api) -> str:
    run = await of_a_worker_that_never_says_so(api)
    await api.beat(marks_log_end=True)  # it was upgraded
    return run


async def of_a_worker_that_does_not_say_so_now(api: Api) -> str:
    run = await unfinished(api)
    await api.beat()
    return run


@pytest.mark.parametrize(
    "make",
    [
        never_begun,
        claimed_and_cancelled_before_it_began,
        run_by_hand,
        followed_by_another_attempt,
        of_a_worker_that_never_says_so,
        of_a_worker_that_did_not_say_so_then,
        of_a_worker_that_does_not_say_so_now,
    ],
)
async def test_a_log_of_which_nothing_more_can_come_is_whole(api: Api, make: Any) -> None:
    run = await make(api)
    end = (await read(api, run, attempt=1))[-1]
    assert isinstance(end, Event)
    assert end.data == WHOLE


async def test_a_log_whose_attempt_was_taken_from_its_worker_is_whole(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path, lease_s=0.3)) as api:
        run = await marking(api)
        async with stream(api, run, follow=True) as response:
            *_, end = [event async for event in events_of(response)]
        assert end == Event("end", 4, WHOLE)
        assert (await api.run(run))["state"] == "PENDING"


async def test_a_log_without_its_end_is_told_as_such_in_the_end(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "QUIET_S", -1.0)
    monkeypatch.setattr(log_stream, "CONFIRM_S", 0.01)
    run = await unfinished(api)
    assert (await read(api, run))[-1] == Event("end", 4, SHORT)
    assert (await api.client.get(f"/runs/{run}/logs")).text == "one\n"
    await append(api, run, 4, "two\n", final=True)  # its worker has come back
    assert (await read(api, run))[-1] == Event("end", 8, WHOLE)


async def test_text_that_comes_while_a_log_is_being_given_up_is_taken(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "QUIET_S", -1.0)
    run = await unfinished(api)
    async with stream(api, run) as response:
        told = events_of(response)
        for _ in range(2):
            await anext(told)
        await append(api, run, 4, "two\n", final=True)
        assert [event async for event in told] == [
            Event("message", 8, "two\n"),
            Event("end", 8, WHOLE),
        ]


LATER = time.time() + 100_000


@pytest.mark.parametrize(
    ("hearing", "state"),
    [
        (Hearing(LATER, LATER - 119, 0), LogState.AWAITED),
        (Hearing(LATER, LATER - 121, 0), LogState.INCOMPLETE),
        (Hearing(LATER, LATER - 119, LATER), LogState.INCOMPLETE),  # its worker is lost
    ],
)
@pytest.mark.parametrize("text", ["", "more"])
async def test_a_log_is_given_up_when_its_worker_is_lost_or_has_been_quiet_though_it_was_heard(
    tmp_path: Path, hearing: Hearing, state: LogState, text: str
) -> None:
    settings = settings_in(tmp_path)
    async with serving(settings) as api:
        run = await unfinished(api)
        if text:
            await append(api, run, 4, text)
    database = await Database.open(settings.database_path, Wakeups(), time.time)
    async with aclosing(database):
        page = await database.read(lambda conn: logs.read_log(conn, run, 1, 4 + len(text), hearing))
    assert page.state is state


@pytest.mark.parametrize("at", ["finished_at", "logged_at"])
async def test_the_quiet_begins_with_the_end_of_the_attempt_or_the_last_text(
    tmp_path: Path, at: str
) -> None:
    settings = settings_in(tmp_path)
    async with serving(settings) as api:
        run = await unfinished(api)
    with closing(sqlite3.connect(settings.database_path)) as connection, connection:
        connection.execute(f"UPDATE attempts SET {at} = {LATER - 119}")
    database = await Database.open(settings.database_path, Wakeups(), time.time)
    async with aclosing(database):
        page = await database.read(
            lambda conn: logs.read_log(conn, run, 1, 4, Hearing(LATER, 0, 0))
        )
    assert page.state is LogState.AWAITED


async def test_logs_from_before_anybody_said_that_they_are_whole_are_so(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as api:
        run = await unfinished(api)
    (upgrade,) = (words for words in UPGRADES[3] if words.startswith("UPDATE attempts"))
    with closing(sqlite3.connect(tmp_path / "server.sqlite3")) as connection, connection:
        connection.execute(upgrade)
    async with serving(settings_in(tmp_path)) as api:
        assert (await read(api, run))[-1] == Event("end", 4, WHOLE)


# How a stream ends that has not come to its end.


@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain"])
async def test_a_server_that_ends_cuts_its_streams_so_that_nobody_takes_them_for_whole(
    tmp_path: Path, accept: str
) -> None:
    async with serving(settings_in(tmp_path)) as api:
        run = await api.running()
        async with stream(api, run, {"Accept": accept}, follow=True) as response:
            api.stop.cancel()
            with trio.CancelScope(shield=True), pytest.raises(httpx.RemoteProtocolError):
                [part async for part in response.aiter_raw()]


async def test_a_stream_whose_run_is_deleted_is_cut(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "PING_S", 0.01)
    run = await api.running()
    async with stream(api, run, follow=True) as response:
        with closing(sqlite3.connect(tmp_path / "server.sqlite3")) as connection, connection:
            connection.execute("PRAGMA foreign_keys=OFF")
            connection.execute("DELETE FROM runs")
        with pytest.raises(httpx.RemoteProtocolError):
            [part async for part in response.aiter_raw()]


async def test_a_reader_who_leaves_is_let_go_of(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = trio.Event()
    original = Wakeups.watch

    @contextmanager
    def watch(wakeups: Wakeups, *keys: str) -> Generator[Watch, None, None]:
        try:
            with original(wakeups, *keys) as news:
                yield news
        finally:
            let_go.set()

    run = await api.running()
    monkeypatch.setattr(Wakeups, "watch", watch)
    reader = await raw_request(api, "GET", f"/runs/{run}/logs?follow=true")
    with trio.fail_after(200):
        await reader.receive_some()
        await reader.aclose()
        await let_go.wait()
