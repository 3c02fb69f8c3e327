"""Logs: appending, reading, following."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from .api import Api, Json, raw_request

ME: Json = {"worker_id": "w1", "attempt": 1}


async def append(api: Api, run: str, offset: int, data: str, **more: Any) -> int:
    body = {"offset": offset, "data": data, **ME, **more}
    return (await api.post(f"/runs/{run}/logs", body))["offset"]


async def text(api: Api, run: str, **params: Any) -> str:
    response = await api.client.get(f"/runs/{run}/logs", params=params)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    return response.text


async def test_chunks_are_stored_once_whatever_comes_twice(api: Api) -> None:
    run = await api.running()
    assert await append(api, run, 0, "grüße\n") == 8
    assert await append(api, run, 0, "grüße\n") == 8
    assert await append(api, run, 2, "üße\nmore\n") == 13  # overlaps
    assert await append(api, run, 13, "") == 13
    assert await text(api, run) == "grüße\nmore\n"
    assert await text(api, run, offset=10) == "re\n"
    assert await text(api, run, offset=99) == ""


async def test_text_that_is_the_body_as_it_is_is_stored_like_any_other(api: Api) -> None:
    run = await api.running()
    for offset, data in ((0, "grüße\n"), (0, "grüße\n"), (2, "üße\n\0"), (9, "")):
        params = {"offset": offset, **ME}
        put = await api.ask("PUT", f"/runs/{run}/logs", content=data, params=params)
        assert put == {"offset": offset + len(data.encode())}
    assert await append(api, run, 9, "more\n") == 14
    assert await text(api, run) == "grüße\n\0more\n"


@pytest.mark.parametrize(
    ("status", "params", "data"),
    [
        (409, {"offset": 1, **ME}, b"x"),
        (409, {"offset": 0, "worker_id": "w2"}, b"x"),
        (409, {"offset": 0, "attempt": 2}, b"x"),
        (422, {"offset": 0, **ME}, "grüße".encode()[:3]),
        (422, {"offset": -1, **ME}, b"x"),
        (422, ME, b"x"),
    ],
)
async def test_text_as_it_is_that_does_not_fit_is_refused(
    api: Api, status: int, params: Json, data: bytes
) -> None:
    run = await api.running()
    assert await api.detail("PUT", f"/runs/{run}/logs", status, content=data, params=params)
    assert await text(api, run) == ""


async def test_a_gap_is_409_and_names_the_offset_expected(api: Api) -> None:
    run = await api.running()
    await append(api, run, 0, "12345")
    body = {"offset": 6, "data": "x", **ME}
    assert "goes on at offset 5, not 6" in await api.detail(
        "POST", f"/runs/{run}/logs", 409, json=body
    )


async def test_a_long_log_is_read_whole(api: Api) -> None:
    run = await api.running()
    offset = 0
    for number in range(40):
        offset = await append(api, run, offset, f"line {number}\n")
    assert await text(api, run) == "".join(f"line {number}\n" for number in range(40))


async def test_the_last_lines_are_taken_after_the_end_until_the_next_attempt(api: Api) -> None:
    run = await api.running()
    await append(api, run, 0, "a")
    await api.post(f"/runs/{run}/cancel")
    assert await append(api, run, 1, "b") == 2
    await api.post(f"/runs/{run}/retry")
    await api.claim()
    late = {"offset": 2, "data": "c", **ME}
    assert "attempt 2, not 1" in await api.detail("POST", f"/runs/{run}/logs", 409, json=late)
    assert await append(api, run, 0, "new", attempt=2) == 3
    assert (await text(api, run), await text(api, run, attempt=1)) == ("new", "ab")


async def test_only_the_attempts_worker_appends(api: Api) -> None:
    run = await api.running()
    body = {"offset": 0, "data": "x", "worker_id": "w2"}
    assert "not held by w2" in await api.detail("POST", f"/runs/{run}/logs", 409, json=body)
    waiting = await api.submit()
    await api.detail("POST", f"/runs/{waiting}/logs", 409, json={"offset": 0, "data": "x"})
    assert await api.post(f"/runs/{run}/logs", {"offset": 0, "data": "by hand"}) == {"offset": 7}


@pytest.mark.parametrize("body", [{"offset": -1, "data": ""}, {"offset": 0}, {"data": ""}])
async def test_a_malformed_chunk_is_422(api: Api, body: Json) -> None:
    run = await api.running()
    assert await api.detail("POST", f"/runs/{run}/logs", 422, json=body)


async def test_an_attempt_that_never_was_is_404(api: Api) -> None:
    run = await api.running()
    assert "no attempt 2" in await api.detail("GET", f"/runs/{run}/logs?attempt=2", 404)
    assert await text(api, await api.submit()) == ""


@asynccontextmanager
async def following(api: Api, run: str, **params: Any) -> AsyncGenerator[AsyncIterator[str], None]:
    params = {"follow": True, **params}
    with trio.fail_after(200):
        async with api.client.stream("GET", f"/runs/{run}/logs", params=params) as response:
            assert response.status_code == 200
            yield response.aiter_text()


async def test_a_followed_log_arrives_as_it_is_written_and_ends_with_the_attempt(api: Api) -> None:
    run = await api.running()
    await append(api, run, 0, "one")
    async with following(api, run) as pieces:
        assert await anext(pieces) == "one"
        await append(api, run, 3, "two")
        assert await anext(pieces) == "two"
        await api.event(run, "COMPLETED", **ME)
        assert [piece async for piece in pieces] == []


async def test_a_log_can_be_followed_before_the_run_is_claimed(api: Api) -> None:
    run = await api.submit()
    await api.beat()
    async with following(api, run) as pieces:
        await api.claim()
        await append(api, run, 0, "first")
        assert await anext(pieces) == "first"
        await api.post(f"/runs/{run}/release", {**ME, "reason": "x"})
        assert [piece async for piece in pieces] == []


async def test_following_an_attempt_that_is_over_ends_at_once(api: Api) -> None:
    run = await api.running()
    await append(api, run, 0, "old")
    await api.post(f"/runs/{run}/cancel")
    async with following(api, run, offset=1) as pieces:
        assert [piece async for piece in pieces] == ["ld"]


async def test_a_reader_that_leaves_in_the_middle_disturbs_nobody(api: Api) -> None:
    run = await api.running()
    offset = 0
    for _ in range(12):
        offset = await append(api, run, offset, "x" * 1_000_000)
    stream = await raw_request(api, "GET", f"/runs/{run}/logs?follow=true")
    with trio.fail_after(200):
        await stream.receive_some()
    await stream.aclose()
    assert await append(api, run, offset, "more") == offset + 4


async def test_a_follower_that_leaves_disturbs_nobody(api: Api) -> None:
    run = await api.running()
    await append(api, run, 0, "one")
    stream = await raw_request(api, "GET", f"/runs/{run}/logs?follow=true")
    received = b""
    with trio.fail_after(200):
        while b"one" not in received:
            received += await stream.receive_some()
    await stream.aclose()
    assert await append(api, run, 3, "two") == 6
