"""Answers that are not a gyoza server's: proxies, content networks, login pages, other programs."""

from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.client import Access, ApiError, AsyncGyozaClient, ForeignAnswer, UnexpectedAnswer

from .conftest import Send
from .scripted import Answer, Scripted

PAGE = b"<h1>Sign in</h1>"
FOREIGN = [
    pytest.param(Answer(PAGE, 521, {"Server": "cloudflare"}), id="521 of a content network"),
    pytest.param(Answer(PAGE, 413), id="413 of nginx"),
    pytest.param(Answer(PAGE, 404), id="404 of nginx"),
    pytest.param(Answer(PAGE, 401), id="401 of nginx"),
    pytest.param(Answer(PAGE, 403), id="403 of a firewall"),
    pytest.param(Answer(b"", 302, {"Location": "https://sso/login?next=1"}), id="redirect"),
    pytest.param(Answer(PAGE, 200, {"Content-Type": "text/html"}), id="login page with 200"),
    pytest.param(Answer(b"", 200), id="nothing"),
    pytest.param(Answer(b"", 204), id="no content"),
    pytest.param(Answer(b'{"id": "r1", "sta', 200), id="half of it"),
    pytest.param(Answer([], 200), id="JSON of another form"),
    pytest.param(Answer({"error": "no"}, 400), id="JSON of another program"),
    pytest.param(Answer({"detail": [1]}, 422), id="JSON of another program with a detail"),
    pytest.param(Answer(b"\xff", 500), id="no text"),
]


@pytest.mark.parametrize("foreign", FOREIGN)
async def test_an_answer_of_something_else_is_retried_until_the_server_answers(
    send: Send, server: Scripted, foreign: Answer
) -> None:
    server.answers[:] = [foreign, foreign, Answer({"id": "r1"})]
    assert await send("get_run", "r1") == {"id": "r1"}
    assert len(server.requests) == 3


@pytest.mark.parametrize("foreign", FOREIGN)
async def test_an_answer_of_something_else_for_good_is_told_as_such(
    send: Send, server: Scripted, foreign: Answer
) -> None:
    server.answers[:] = [foreign]
    words = "check GYOZA_SERVER_URL|^A proxy in front of the server answered"
    with pytest.raises((ForeignAnswer, UnexpectedAnswer), match=words) as caught:
        await send("get_run", "r1")
    assert f"{server.url}/runs/r1 " in str(caught.value)
    assert len(server.requests) == 4


@pytest.mark.parametrize("foreign", FOREIGN)
async def test_a_call_that_may_count_twice_is_told_after_one_try(
    send: Send, server: Scripted, foreign: Answer
) -> None:
    server.answers[:] = [foreign]
    with pytest.raises((ForeignAnswer, UnexpectedAnswer)):
        await send("update_run", "r1", priority=3)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
async def test_the_servers_own_refusal_is_an_answer(
    send: Send, server: Scripted, status: int
) -> None:
    server.answers[:] = [Answer({"detail": "So it is."}, status)]
    with pytest.raises(ApiError, match=r"^So it is\.$") as caught:
        await send("get_run", "r1")
    assert not isinstance(caught.value, ForeignAnswer)
    assert len(server.requests) == 1


async def test_a_page_without_a_word_has_taken_no_report_but_a_small_server_may(
    send: Send, server: Scripted
) -> None:
    report: dict[str, Any] = {"run_id": "r1", "event_type": "INFO", "msg": "x"}
    server.answers[:] = [Answer(b"", 200, {"Content-Type": "text/html"})]
    with pytest.raises(UnexpectedAnswer):
        await send("add_event", **report)
    server.answers[:] = [Answer(b"", 200)]
    assert await send("add_event", **report) == {}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            Answer(PAGE, 502, {"Via": "1.1 varnish"}),
            r"^A proxy in front of the server answered 502 Bad Gateway for http.*"
            r"via 1\.1 varnish.*: the server behind it may be away[.]$",
        ),
        (
            Answer(PAGE, 413),
            "^A proxy in front of the server answered 413 .* calls itself BaseHTTP.*; "
            "raise its limit for bodies.*see the page 'Behind a reverse proxy'[.]$",
        ),
        (Answer(PAGE, 503), "answered 503 .*: the server behind it may be away[.]$"),
        (Answer(PAGE, 504), "answered 504 .*: the server behind it may be away[.]$"),
        (Answer(PAGE, 500), "a proxy on the way reaches the server[.]$"),
        (Answer(PAGE, 401), "a proxy on the way wants a login"),
        (Answer(b"", 302, {"Location": "https://u:p@sso/login?key=1"}), "points to sso/login[.]$"),
        (Answer(PAGE, 404), "its path too"),
        (Answer(PAGE, 200), "shows a page of its own"),
    ],
)
async def test_the_sentence_names_who_has_answered_and_what_to_check(
    send: Send, server: Scripted, answer: Answer, told: str
) -> None:
    server.answers[:] = [answer]
    with pytest.raises((ForeignAnswer, UnexpectedAnswer), match=told) as caught:
        await send("get_run", "r1")
    assert "\n" not in str(caught.value)


async def test_a_key_that_was_changed_is_used_after_a_refusal_of_something_else_too(
    server: Scripted, tmp_path: Path, impatient: None
) -> None:
    file = trio.Path(tmp_path / "key")
    await file.write_text("old")
    async with AsyncGyozaClient(Access(url=server.url, api_key_file=str(file))) as client:
        _ = client.connection
        await file.write_text("new")
        server.answers[:] = [Answer(PAGE, 401)] * 4 + [Answer([])]
        with pytest.raises(ForeignAnswer):  # it has used up its tries: no one was for nothing
            await client.list_workers()
        assert await client.list_workers() == []
    used = [request.headers["X-API-Key"] for request in server.requests]
    assert used == ["old", "new", "new", "new", "new"]
