"""Reading logs: whatever cuts the stream, nothing comes twice and nothing is left out."""

import gc
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gyoza.client import (
    Access,
    ApiError,
    AsyncGyozaClient,
    ForeignAnswer,
    GyozaClient,
    LogIncomplete,
    ServerUnreachable,
    UnexpectedAnswer,
    log_reading,
)
from tests.server.api import KEY, serving, settings_in

from .relay import relaying
from .streams import HEAD, PLAIN, WELL, Talk, drip, end, hang, piece, streaming, then_hang

Read = Callable[..., Awaitable[Any]]

ONE, TWO = piece(6, "first\n"), piece(13, "second\n")
BOTH = ["first\n", "second\n"]


def error(status: str, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + headers + b"\r\n" + body


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    monkeypatch.setattr(log_reading, "EMPTY_PAUSE_S", 0.0)


@pytest.fixture(params=["blocking", "trio"])
def follow(request: pytest.FixtureRequest) -> Read:
    """Follows the log of run r to its end, by both clients; returns the pieces."""

    async def follow(url: str, **options: Any) -> list[str]:
        if request.param == "blocking":
            with GyozaClient(url, KEY) as client:
                pieces = client.follow_logs("r", **options)
                return await trio.to_thread.run_sync(lambda: list(pieces))
        async with (
            AsyncGyozaClient(url, KEY) as client,
            aclosing(client.follow_logs("r", **options)) as log,
        ):
            return [text async for text in log]

    return follow


@pytest.fixture(params=["blocking", "trio"])
def get(request: pytest.FixtureRequest) -> Read:
    """Gets the log of run r, by both clients."""

    async def get(url: str, **options: Any) -> str:
        if request.param == "blocking":
            with GyozaClient(url, KEY) as client:
                return await trio.to_thread.run_sync(lambda: client.get_logs("r", **options))
        async with AsyncGyozaClient(url, KEY) as client:
            return await client.get_logs("r", **options)

    return get


async def test_a_stream_that_was_cut_goes_on_at_its_offset_with_the_same_attempt(
    follow: Read,
) -> None:
    async with streaming(HEAD + ONE, HEAD + TWO, HEAD + end()) as server:
        assert await follow(server.url) == BOTH
    assert server.asked == [
        "/runs/r/logs?follow=true",
        "/runs/r/logs?attempt=2&offset=6&follow=true",
        "/runs/r/logs?attempt=2&offset=13&follow=true",
    ]


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(b"", id="hung up"),
        pytest.param(error("503 -", b'{"detail": "Later."}'), id="the server asks for patience"),
        pytest.param(error("521 -", b"<h1>down</h1>"), id="a content network"),
        pytest.param(error("404 -", b"<h1>nginx</h1>"), id="a proxy without its server"),
        pytest.param(error("302 -", b"", b"Location: /login\r\n"), id="a redirect"),
        pytest.param(error("200 -", b"<h1>Hi</h1>", b"Content-Type: text/html\r\n"), id="a login"),
        pytest.param(error("200 -", b""), id="nothing"),
        pytest.param(
            PLAIN.replace(b"plain", b"event-stream") + b"Content-Encoding: gzip\r\n\r\n", id="gzip"
        ),
        pytest.param(HEAD + TWO[:20], id="half a piece"),
        pytest.param(HEAD + b"data: 1\n\n", id="no offset"),
        pytest.param(HEAD + piece(20, 7), id="no text"),
        pytest.param(HEAD + b'id: 20\ndata: "half\n\n', id="half a string"),
        pytest.param(HEAD + b"event: end\ndata: {}\n\n", id="an end that says nothing"),
        pytest.param(HEAD + b"\xff\n\n", id="no UTF-8"),
    ],
)
async def test_whatever_comes_in_between_is_waited_out(follow: Read, between: bytes) -> None:
    async with streaming(HEAD + ONE, between, between, HEAD + TWO + end()) as server:
        assert await follow(server.url) == BOTH
    assert len(server.asked) == 4


async def test_text_never_ends_within_a_character(follow: Read) -> None:
    async with streaming(drip) as server:
        assert await follow(server.url) == ["grüße 🥟\n"]


async def test_half_a_character_of_plain_text_waits_for_its_other_half(follow: Read) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        for part in (PLAIN + b"\r\n", b"a", "ö".encode()[:1], "ö".encode()[1:]):
            await stream.send_all(part)
            await wait_all_tasks_blocked(0.05)

    async with streaming(talk) as server:
        assert await follow(server.url) == ["a", "ö"]


async def test_kinds_of_events_and_fields_that_nobody_knows_are_passed_over(follow: Read) -> None:
    news = b"event: news\nid: 9\ndata: {}\n\nretry: 5\nid: 6\n\n: word\nid: 6\r\n"
    said = news + b'data: "first\\n"\r\ncolour: red\n\n'
    async with streaming(HEAD + said + TWO + end()) as server:
        assert await follow(server.url) == BOTH


async def test_an_event_whose_data_has_several_lines_is_one(follow: Read) -> None:
    async with streaming(HEAD + b'id: 6\ndata: "fir\ndata: st"\n\n' + end()) as server:
        with pytest.raises(ServerUnreachable):  # JSON has no line ends within a string
            await follow(server.url, patience_s=0)


async def test_a_stream_that_has_said_its_end_need_not_close(follow: Read) -> None:
    async with streaming(then_hang(HEAD + ONE + TWO + end() + TWO)) as server:
        assert await follow(server.url) == BOTH


async def test_a_server_that_is_gone_without_a_word_is_asked_anew(
    follow: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reading, "SILENCE_S", 0.1)
    async with streaming(then_hang(HEAD + ONE), hang, HEAD + TWO + end()) as server:
        server.health = [b"", b"", b"", b"", WELL]
        assert await follow(server.url) == BOTH
    assert len(server.asked) == 3


async def test_a_server_that_is_well_is_waited_for_though_a_proxy_holds_its_words_back(
    follow: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reading, "SILENCE_S", 0.1)
    monkeypatch.setattr(log_reading, "FOLLOW", log_reading.READ)  # a few tries without success
    async with streaming(hang, hang, hang, hang, hang, HEAD + ONE + TWO + end()) as server:
        server.health = [WELL] * 5
        assert await follow(server.url) == BOTH


@pytest.mark.parametrize("answer", [b"", error("521 -", b""), error("503 -", b'{"detail": "x"}')])
async def test_it_is_given_up_when_patience_is_over_and_says_that_the_run_goes_on(
    follow: Read, answer: bytes
) -> None:
    async with streaming(answer) as server:
        with pytest.raises(
            ServerUnreachable, match=r"^Run r goes on.*`gyoza runs logs --follow r`"
        ):
            await follow(server.url, patience_s=0)


async def test_a_server_whose_streams_never_make_sense_is_given_up(follow: Read) -> None:
    async with streaming(HEAD + b"id: x\ndata: 1\n\n") as server:
        with pytest.raises(ServerUnreachable, match="does not come as a gyoza server sends it"):
            await follow(server.url, patience_s=0.2)


async def test_a_refusal_of_the_server_is_told_at_once(follow: Read) -> None:
    refusal = error("404 -", b'{"detail": "There is no run r."}')
    async with streaming(HEAD + ONE, refusal) as server:
        with pytest.raises(ApiError, match=r"^There is no run r\.$") as caught:
            await follow(server.url)
    assert not isinstance(caught.value, ForeignAnswer)
    assert len(server.asked) == 2


async def test_a_key_that_was_changed_meanwhile_is_read_again(tmp_path: Path) -> None:
    file = trio.Path(tmp_path / "key")
    refusal = error("401 -", b'{"detail": "The key is wrong."}')
    access = Access(api_key_file=str(file))
    for kind in (GyozaClient, AsyncGyozaClient):
        await file.write_text("old")
        async with streaming(HEAD + ONE, refusal, HEAD + TWO + end()) as server:
            client = kind(replace(access, url=server.url))
            _ = client.connection
            await file.write_text("new")
            if isinstance(client, GyozaClient):
                log = await trio.to_thread.run_sync(lambda c: list(c.follow_logs("r")), client)
                client.close()
            else:
                async with client, aclosing(client.follow_logs("r")) as texts:
                    log = [text async for text in texts]
        assert log == BOTH


async def test_the_end_of_a_log_that_never_came_is_an_error(follow: Read, get: Read) -> None:
    async with streaming(HEAD + ONE + end(complete=False)) as server:
        with pytest.raises(LogIncomplete, match=r"the log of run r is missing.*has the rest"):
            await follow(server.url)
        with pytest.raises(LogIncomplete) as caught:
            await get(server.url)
    assert caught.value.text == "first\n"


async def test_of_an_attempt_under_way_there_is_what_there_is(get: Read) -> None:
    async with streaming(HEAD + ONE + end(complete=False, under_way=True)) as server:
        assert await get(server.url, attempt=2) == "first\n"
    assert server.asked == ["/runs/r/logs?attempt=2"]


async def test_a_log_is_got_whole_though_its_stream_is_cut(get: Read) -> None:
    async with streaming(HEAD + ONE, b"", b"", HEAD + TWO + end()) as server:
        assert await get(server.url) == "first\nsecond\n"


@pytest.mark.parametrize("answer", [b"", error("200 -", b"<p>", b"Content-Type: text/html\r\n")])
async def test_a_log_is_asked_for_as_often_as_anything_that_is_read(
    get: Read, answer: bytes
) -> None:
    async with streaming(answer) as server:
        with pytest.raises((ServerUnreachable, UnexpectedAnswer)) as caught:
            await get(server.url)
    assert "goes on" not in str(caught.value)
    assert len(server.asked) == 4


async def test_plain_text_of_an_older_or_a_small_server_is_taken(follow: Read, get: Read) -> None:
    async with streaming(PLAIN + b"\r\n" + "a\nö".encode()) as server:
        assert "".join(await follow(server.url)) == "a\nö"
        assert await get(server.url) == "a\nö"
    async with streaming(PLAIN + b"\r\n" + "a\nö".encode()[:-1]) as server:
        assert "".join(await follow(server.url)) == "a\n\N{REPLACEMENT CHARACTER}"


CUT = PLAIN + b"Content-Length: 99\r\n\r\n"


async def test_plain_text_that_was_cut_is_asked_for_anew_only_if_nobody_has_seen_it(
    follow: Read, get: Read
) -> None:
    async with streaming(CUT, PLAIN + b"\r\nhalf and whole") as server:
        assert "".join(await follow(server.url)) == "half and whole"
    async with streaming(CUT + b"half", PLAIN + b"\r\nhalf and whole") as server:
        assert await get(server.url) == "half and whole"
    async with streaming(CUT + b"half", PLAIN + b"\r\nhalf and whole") as server:
        with pytest.raises(ServerUnreachable):
            await follow(server.url)


async def test_plain_text_may_be_quiet_for_as_long_as_its_server_likes(
    follow: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reading, "SILENCE_S", 0.1)

    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(PLAIN + b"\r\na")
        await wait_all_tasks_blocked(0.3)
        await stream.send_all(b"b")

    async with streaming(talk) as server:
        assert "".join(await follow(server.url)) == "ab"
    assert len(server.asked) == 1


async def test_outages_are_told_from_the_second_try_on_and_their_end_as_well() -> None:
    told: list[Exception | None] = []
    answers: list[bytes | Talk] = [HEAD + ONE, HEAD, HEAD, b"", b"", b"", HEAD + TWO + end()]
    async with (
        streaming(*answers) as server,
        AsyncGyozaClient(server.url) as client,
        aclosing(client.stream_logs("r", follow=True, tell=told.append)) as log,
    ):
        pieces = [piece async for piece in log]
    assert [(p.text, p.attempt, p.start, p.offset) for p in pieces] == [
        ("first\n", 2, 0, 6),
        ("second\n", 2, 6, 13),
    ]
    outage, back = told
    assert isinstance(outage, ServerUnreachable)
    assert back is None


async def test_a_stream_can_begin_at_an_offset() -> None:
    async with streaming(HEAD + TWO + end()) as server:
        with GyozaClient(server.url) as client:
            stream = client.stream_logs("r", attempt=2, offset=6)
            (only,) = await trio.to_thread.run_sync(lambda: list(stream))
    assert (only.text, only.start) == ("second\n", 6)
    assert server.asked == ["/runs/r/logs?attempt=2&offset=6"]


async def test_a_server_that_speaks_for_ever_and_sends_no_text_is_given_up() -> None:
    said = HEAD + b": ping\n\n"
    async with streaming(said) as server, AsyncGyozaClient(server.url) as client:
        with pytest.raises(ServerUnreachable, match="nothing of its log came for 0 s"):
            async with aclosing(client.stream_logs("r", patience_s=0)) as log:
                [piece async for piece in log]


async def test_an_event_without_end_fills_no_memory(get: Read) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(HEAD + b'id: 1\ndata: "')
        while True:
            await stream.send_all(b"x" * 65536)

    async with streaming(talk) as server:
        with pytest.raises(UnexpectedAnswer, match="an event is too large"):
            await get(server.url)


async def test_a_log_without_end_fills_no_memory(
    get: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reading, "LOG_BYTES", 20)
    async with streaming(HEAD + ONE + TWO + piece(99, "x" * 86) + end()) as server:
        with pytest.raises(UnexpectedAnswer, match="longer than 20 bytes"):
            await get(server.url)


async def test_who_leaves_in_the_middle_leaves_nothing_behind() -> None:
    async with streaming(then_hang(HEAD + ONE)) as server:
        async with AsyncGyozaClient(server.url) as client, aclosing(client.follow_logs("r")) as log:
            assert await anext(log) == "first\n"
        with GyozaClient(server.url) as client:
            pieces = client.follow_logs("r")
            assert await trio.to_thread.run_sync(lambda: next(pieces)) == "first\n"
            pieces.close()
    gc.collect()  # a generator that was not finished would say so here


async def test_a_log_comes_whole_from_a_real_server_whose_answers_are_cut_again_and_again(
    tmp_path: Path,
) -> None:
    text = "".join(f"{n:06} grüße\n" for n in range(100_000))
    async with serving(settings_in(tmp_path)) as api, relaying(api.url) as relay:
        run = await api.running()
        params = {"offset": 0, "worker_id": "w1", "attempt": 1}
        await api.ask("PUT", f"/runs/{run}/logs", content=text.encode(), params=params)
        await api.event(run, "COMPLETED", worker_id="w1", attempt=1)
        async with AsyncGyozaClient(relay.url, KEY) as client:
            got = ""
            async with aclosing(client.follow_logs(run)) as log:
                async for part in log:
                    got += part
                    relay.cuts = 1
        assert got == text
