"""Somebody who wants more of a server than his key gives him, or all of it for himself."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gyoza.server.limits import Limits
from tests.server.api import KEY, Api, raw_request, serving, settings_in

LIMITS = Limits(idle_s=0.3, body_s=0.3, send_s=0.3, rate=50, burst_s=1)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncGenerator[Api]:
    async with serving(settings_in(tmp_path)) as api:
        yield api


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncGenerator[Api]:
    """A server with little patience."""
    async with serving(settings_in(tmp_path), limits=LIMITS) as api:
        yield api


async def key_of(api: Api, role: str, worker: str | None = None) -> str:
    body = {"name": f"a {role}", "role": role} | ({"worker": worker} if worker else {})
    return (await api.post("/keys", body, 201))["key"]


async def status(api: Api, key: str, method: str, path: str, body: Any = None) -> int:
    with trio.fail_after(200):  # a kept connection may be closed just now: the server is impatient
        async with httpx.AsyncClient(verify=False) as client:
            url = api.url + path  # whole, since a base would take //keys for a host
            response = await client.request(method, url, json=body, headers={"X-API-Key": key})
    if response.status_code >= 400:
        assert list(response.json()) == ["detail"]
        assert key not in response.text
    return response.status_code


def said(run: str, worker: str = "gpu-1", **more: Any) -> dict[str, Any]:
    return {"type": "INFO", "msg": "hello", "worker_id": worker, "attempt": 1, **more}


async def test_a_worker_key_works_for_its_workers(api: Api) -> None:
    key = await key_of(api, "worker", "gpu-*")
    run = await api.submit()
    beat: dict[str, Any] = {"worker_id": "gpu-1", "resources": {}}
    assert await status(api, key, "POST", "/workers/heartbeat", beat) == 200
    assert await status(api, key, "POST", "/workers/gpu-1/claim", {"max_runs": 1}) == 200
    assert (await api.run(run))["worker_id"] == "gpu-1"
    assert await status(api, key, "GET", f"/runs/{run}") == 200
    assert await status(api, key, "GET", "/workers/gpu-1/changes") == 200
    assert await status(api, key, "GET", "/workers/gpu-2") == 404
    started = said(run, type="STARTED")
    assert await status(api, key, "POST", f"/runs/{run}/events", started) == 200
    chunk = {"worker_id": "gpu-1", "attempt": 1, "offset": 0, "data": "text"}
    assert await status(api, key, "POST", f"/runs/{run}/logs", chunk) == 200
    assert await status(api, key, "PUT", f"/runs/{run}/logs?offset=4&worker_id=gpu-1") == 200
    back = {"worker_id": "gpu-1", "attempt": 1, "reason": "SHUTDOWN"}
    assert await status(api, key, "POST", f"/runs/{run}/release", back) == 200
    # It was this worker's once: that it is no more has to be told.
    assert await status(api, key, "GET", f"/runs/{run}") == 200
    assert await status(api, key, "POST", f"/runs/{run}/events", said(run)) == 409


async def test_a_worker_that_speaks_in_the_name_of_another(api: Api) -> None:
    key = await key_of(api, "worker", "gpu-1")
    run = await api.running("cpu-1")
    waiting = await api.submit()
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/workers/heartbeat", {"worker_id": "cpu-1", "resources": {}}),
        ("POST", "/workers/cpu-1/claim", {"max_runs": 1}),
        ("GET", "/workers/cpu-1/changes", None),
        ("POST", f"/runs/{run}/events", said(run, "cpu-1")),
        ("POST", f"/runs/{run}/events", {"type": "INFO", "msg": "nobody"}),
        ("POST", f"/runs/{run}/events", ["no object"]),
        ("POST", f"/runs/{run}/events", {"type": "COMPLETED", "msg": "x", "worker_id": ["gpu-1"]}),
        ("POST", f"/runs/{run}/logs", {"worker_id": "cpu-1", "attempt": 1, "data": "x"}),
        ("PUT", f"/runs/{run}/logs?offset=0&worker_id=cpu-1", {"worker_id": "gpu-1"}),
        ("PUT", f"/runs/{run}/logs?offset=0&worker_id=gpu-1&worker_id=cpu-1", None),
        ("PUT", f"/runs/{run}/logs?offset=0", {"worker_id": "gpu-1"}),
        ("POST", f"/runs/{run}/release", {"worker_id": "cpu-1", "attempt": 1}),
        ("GET", f"/runs/{run}", None),
        ("GET", f"/runs/{run}/logs", None),
        ("GET", f"/runs/{waiting}", None),
    ]
    for method, path, body in requests:
        assert await status(api, key, method, path, body) == 403, (method, path, body)
    assert await status(api, key, "GET", "/runs/unknown") == 404
    # In its own name it cannot touch what another one holds either.
    assert await status(api, key, "POST", f"/runs/{run}/events", said(run, "gpu-1")) == 409
    assert [event["type"] for event in (await api.run(run))["events"]] == ["ASSIGNED", "STARTED"]


@pytest.mark.parametrize("role", ["worker", "client"])
async def test_somebody_who_would_be_an_admin(api: Api, role: str) -> None:
    key = await key_of(api, role, "*" if role == "worker" else None)
    await api.beat("w1")
    assert await status(api, key, "GET", "/keys") == 403
    assert await status(api, key, "POST", "/keys", {"name": "x", "role": "admin"}) == 403
    assert await status(api, key, "DELETE", "/keys/abc") == 403
    assert await status(api, key, "POST", "/workers/w1/drain") == 403
    for path in ("/keys/", "//keys", "/runs/../keys", "/KEYS", "/keys%00"):
        assert await status(api, key, "GET", path) in (403, 404), path


async def test_a_client_that_plays_the_worker(api: Api) -> None:
    key = await key_of(api, "client")
    run = await api.submit()
    assert await status(api, key, "POST", "/workers/heartbeat", {"worker_id": "w"}) == 403
    assert await status(api, key, "POST", "/workers/w/claim", {"max_runs": 1}) == 403
    assert await status(api, key, "POST", f"/runs/{run}/events", said(run)) == 403
    assert await status(api, key, "POST", f"/runs/{run}/release", {"worker_id": "w"}) == 403
    assert await status(api, key, "POST", f"/runs/{run}/cancel") == 200
    assert await status(api, key, "GET", "/runs") == 200


async def test_a_worker_that_plays_the_client(api: Api) -> None:
    key = await key_of(api, "worker", "*")
    run = await api.submit()
    assert await status(api, key, "POST", f"/runs/{run}/cancel") == 403
    assert await status(api, key, "PATCH", f"/runs/{run}", {"priority": 9}) == 403
    assert await status(api, key, "POST", "/runs", {"image": "x", "inputs": {}}) == 403
    assert await status(api, key, "GET", "/runs") == 403
    assert await status(api, key, "GET", "/events") == 403


async def test_a_key_that_was_revoked(api: Api) -> None:
    key = await key_of(api, "client")
    [listed] = await api.get("/keys")
    assert listed["id"] in key
    assert await status(api, key, "GET", "/runs") == 200
    assert await api.ask("DELETE", f"/keys/{listed['id']}") == []
    assert await status(api, key, "GET", "/runs") == 401
    assert "no key" in await api.detail("DELETE", f"/keys/{listed['id']}", 404)


async def test_a_key_that_is_revoked_while_its_holder_follows_and_waits(api: Api) -> None:
    key = await key_of(api, "client")
    run = await api.running()
    [listed] = await api.get("/keys")
    answers: list[int] = []

    async def wait() -> None:
        path = f"/runs/{run}?after_event=1&wait_s=60"
        answers.append(await status(api, key, "GET", path))

    async with trio.open_nursery() as nursery:
        headers = {"X-API-Key": key}
        async with api.client.stream(
            "GET", f"/runs/{run}/logs?follow=true", headers=headers
        ) as log:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.1)
            await api.ask("DELETE", f"/keys/{listed['id']}")
            chunk = {"worker_id": "w1", "attempt": 1, "offset": 0, "data": "not for him"}
            await api.post(f"/runs/{run}/logs", chunk)
            with trio.fail_after(200), pytest.raises(httpx.RemoteProtocolError):
                await log.aread()
        assert log.num_bytes_downloaded == 0
    assert answers == [401]


async def test_somebody_without_a_key_who_fills_the_memory_for_bodies(tmp_path: Path) -> None:
    limits = Limits(bodies_bytes=60_000)
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    async with serving(settings_in(tmp_path), limits=limits) as api, await connect(api) as stream:
        await stream.send_all(head + b"x" * 50_000)
        await wait_all_tasks_blocked(0.1)
        assert await api.submit(inputs={"text": "x" * 50_000})


async def test_somebody_who_reads_the_database_finds_no_key(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with serving(settings) as api:
        key = await key_of(api, "admin")
    async with serving(settings) as api:  # another life of the server knows it
        assert await status(api, key, "GET", "/keys") == 200
    for file in settings.database_path.parent.iterdir():
        data = file.read_bytes()
        assert key.encode() not in data
        assert key.split("_", 2)[2].encode() not in data  # a secret may hold "_"
        assert KEY.encode() not in data
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "role": "worker"},
        {"name": "x", "role": "client", "worker": "*"},
        {"name": "x", "role": "root"},
        {"name": "", "role": "admin"},
        {"role": "admin"},
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(api: Api, body: dict[str, str]) -> None:
    await api.detail("POST", "/keys", 422, json=body)


async def test_somebody_who_tries_many_keys_while_others_work(strict: Api) -> None:
    tried = [await status(strict, f"wrong-{n}", "GET", "/runs") for n in range(80)]
    assert await status(strict, KEY, "GET", "/runs") == 200
    # Behind the same proxy there may be a program that nobody told of a new key.
    assert tried == [401] * 80


async def test_somebody_who_asks_too_often_while_others_work(strict: Api) -> None:
    key = await key_of(strict, "client")
    with trio.fail_after(200):
        async with httpx.AsyncClient(base_url=strict.url, headers={"X-API-Key": key}) as client:
            answers = [await client.get("/workers") for _ in range(51)]
            while answers[-1].status_code != 429:
                answers.append(await client.get("/workers"))
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert await status(strict, KEY, "GET", "/runs") == 200


async def until_closed(stream: trio.SocketStream) -> bytes:
    """Return all that comes until the server hangs up."""
    received = b""
    with trio.fail_after(200):
        try:
            async for data in stream:
                received += bytes(data)
        except trio.BrokenResourceError:
            pass
    return received


async def connect(api: Api) -> trio.SocketStream:
    host, port = api.url.removeprefix("http://").split(":")
    return await trio.open_tcp_stream(host, int(port))


async def test_somebody_who_connects_and_says_nothing(strict: Api) -> None:
    async with await connect(strict) as stream:
        await until_closed(stream)


async def test_somebody_who_never_ends_his_headers(strict: Api) -> None:
    async with await connect(strict) as stream, trio.open_nursery() as nursery:

        async def drip() -> None:
            await stream.send_all(b"GET /runs HTTP/1.1\r\nHost: x\r\n")
            while True:
                try:
                    await stream.send_all(b"X-Slow: 1\r\n")
                except trio.BrokenResourceError:
                    return
                await trio.sleep(0.02)

        nursery.start_soon(drip)
        received = await until_closed(stream)
        nursery.cancel_scope.cancel()
    assert b" 200 " not in received


async def test_somebody_with_headers_without_end(api: Api) -> None:
    async with await connect(api) as stream:
        with trio.fail_after(200):
            with suppress(trio.BrokenResourceError):
                await stream.send_all(b"GET /runs HTTP/1.1\r\nX-Long: " + b"x" * 10_000_000)
        assert b" 200 " not in await until_closed(stream)


async def test_somebody_who_sends_half_a_body(strict: Api) -> None:
    async with await raw_request(strict, "POST", "/runs", "{") as stream:
        pass  # the whole of a short one
    async with await connect(strict) as stream:
        head = f"POST /runs HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: 100\r\n\r\n"
        await stream.send_all(head.encode() + b"half")
        received = await until_closed(stream)
    assert b" 408 " in received
    assert await status(strict, KEY, "GET", "/runs") == 200


async def test_somebody_who_says_the_length_of_a_body_in_two_ways(api: Api) -> None:
    async with await connect(api) as stream:
        await stream.send_all(
            f"POST /runs HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: 5\r\n"
            "Content-Length: 50\r\n\r\nhello".encode()
        )
        assert b" 400 " in await until_closed(stream)


async def test_somebody_who_smuggles_a_request_behind_another(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    for key in (KEY, "wrong"):
        async with await connect(api) as stream:
            await stream.send_all(
                f"GET /runs HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: 5\r\n"
                "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                f"GET /runs HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n".encode()
            )
            received = await until_closed(stream)
        # What was sent on may make the system drop the one answer; there is no second.
        assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
        assert received.count(b"HTTP/1.1 ") <= 1
    for tail in (b"", b"\r\n\r\n", b" \0\r\n\r\n"):
        async with await connect(api) as stream:
            await stream.send_all(
                b"GET /runs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x" + tail
            )
            await stream.send_eof()
            await until_closed(stream)
    assert "Traceback" not in caplog.text


async def test_somebody_who_downloads_a_log_and_does_not_read_it(strict: Api) -> None:
    run = await strict.running()
    text = "x" * 1_000_000
    for part in range(12):
        body = {"worker_id": "w1", "attempt": 1, "offset": part * len(text), "data": text}
        await strict.post(f"/runs/{run}/logs", body)
    async with await raw_request(strict, "GET", f"/runs/{run}/logs") as stream:
        with trio.fail_after(200):
            while _server_has(stream):  # noqa: ASYNC110 - the kernel ends it and tells nobody
                await trio.sleep(0.05)
        assert len(await until_closed(stream)) < 12_000_000
    assert await status(strict, KEY, "GET", "/runs") == 200


def _server_has(stream: trio.SocketStream) -> bool:
    """Whether the server, which is in this process, has the other end of a connection."""
    ends = psutil.Process().net_connections("tcp")
    return any(end.raddr == stream.socket.getsockname() for end in ends)
