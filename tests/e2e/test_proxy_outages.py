"""Server, or reverse proxy before it, away for a while; a proxy that waits too short or lies."""

import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.client import AsyncGyozaClient, ForeignAnswer
from tests.images import busybox_image
from tests.server.api import KEY, serving, settings_in
from tests.server.process import ServerProcess
from tests.support.chatty_op import chatty, check_told, open_pipes
from tests.support.proxied import (
    Followers,
    ended,
    gyoza,
    has_told,
    open_site,
    open_worker,
    port_of,
    run_once,
)
from tests.support.reverse_proxy import HAPROXY, HTTP_1_0, NGINX, Setup, each, open_reverse_proxy

__all__ = ["busybox_image"]

pytestmark = pytest.mark.docker  # which is where both proxies are installed

LIMIT_S = 200

IMPATIENT = {
    "nginx": NGINX.but(("proxy_read_timeout 90s", "proxy_read_timeout 2s")),
    "haproxy": HAPROXY.but(
        ("timeout client 90s", "timeout client 2s"), ("timeout server 90s", "timeout server 2s")
    ),
}
AWAY = """
    location @away {{ return {} '<html>away</html>'; }}
    location / {{
        error_page 502 504 = @away;
"""
LIARS = {
    f"nginx that says {status}": NGINX.but(("    location / {\n", AWAY.format(status)))
    for status in (200, 401, 404, 521)
}
both = {"nginx": NGINX, "haproxy": HAPROXY}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ServerProcess]:
    """A server as a process."""
    server = ServerProcess(tmp_path)
    await server.start()
    yield server
    await server.kill()


@each({**both, "nginx with HTTP 1.0": HTTP_1_0})
async def test_a_log_is_followed_through_restarts_of_server_and_proxy(
    setup: Setup, server: ServerProcess
) -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            AsyncGyozaClient(server.url, KEY) as client,
            open_reverse_proxy(setup, port_of(server.url)) as proxy,
            trio.open_nursery() as nursery,
        ):
            run_id = (await client.create_run("image", {}))["id"]
            await client.add_event(run_id, "STARTED", "go")
            followers = Followers(proxy.access, run_id)
            nursery.start_soon(followers.follow)
            await client.append_logs(run_id, 0, "one\n")
            await followers.until("one\n")
            await server.kill()
            await proxy.answers("/logs", 502, 503, times=3)
            await server.start()
            await client.append_logs(run_id, 4, "two\n")
            await followers.until("two\n")
            await proxy.stop()
            await client.append_logs(run_id, 8, "three\n")
            await proxy.start()
            await followers.until("three\n")
            await client.append_logs(run_id, 14, "four\n")
            await client.add_event(run_id, "COMPLETED", "done", {})
            await followers.done.wait()
    assert set(followers.texts.values()) == {"one\ntwo\nthree\nfour\n"}


@each(both)
async def test_a_log_is_followed_through_a_server_that_ends_as_it_should(
    setup: Setup, tmp_path: Path
) -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(settings_in(tmp_path)) as api, AsyncGyozaClient(api.url, KEY) as client:
            run_id = (await client.create_run("image", {}))["id"]
            await client.add_event(run_id, "STARTED", "go")
            await client.append_logs(run_id, 0, "one\n")
        again = settings_in(tmp_path, port=port_of(api.url))
        async with (
            open_reverse_proxy(setup, again.port) as proxy,
            trio.open_nursery() as nursery,
        ):
            followers = Followers(proxy.access, run_id)
            async with serving(again):
                nursery.start_soon(followers.follow)
                await followers.until("one\n")
            async with serving(again), AsyncGyozaClient(api.url, KEY) as client:
                await client.append_logs(run_id, 4, "two\n")
                await followers.until("two\n")
                await client.add_event(run_id, "COMPLETED", "done", {})
                await followers.done.wait()
    assert set(followers.texts.values()) == {"one\ntwo\n"}


@each(IMPATIENT)
async def test_a_run_that_is_silent_for_longer_than_it_waits_is_executed_and_followed(
    setup: Setup, tmp_path: Path, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            open_site(setup, tmp_path) as (api, proxy),
            AsyncGyozaClient(api.url, KEY) as client,
            open_worker(proxy.access, tmp_path) as directory,
            trio.open_nursery() as nursery,
        ):
            run_id = (await client.create_run(busybox_image, {}, command=chatty(pauses=True)))["id"]
            await run_once(client, run_id, has_told("began"))
            followers = Followers(proxy.access, run_id)
            nursery.start_soon(followers.follow)
            async with open_pipes(directory / f"{run_id}.1") as op:
                await op.waits()
                await followers.until("line 50.")
                await proxy.answers("/changes", 200, times=2)  # though there is no news
                await proxy.answers("/claim", 200, times=2)
                await proxy.answers("/logs", times=6)  # cut, for each follower twice
                await op.go_on()
            run = await run_once(client, run_id, ended)
            log = await client.get_logs(run_id)
    check_told(run, log)
    assert set(followers.texts.values()) == {log}


@each(IMPATIENT)
async def test_a_run_is_followed_to_its_outputs_by_waits_that_it_bears(
    setup: Setup, tmp_path: Path
) -> None:
    done: list[subprocess.CompletedProcess[bytes]] = []
    with trio.fail_after(LIMIT_S):
        async with open_site(setup, tmp_path) as (api, proxy), trio.open_nursery() as nursery:

            async def follow() -> None:
                done.append(await gyoza(proxy.access, "run", "image", "--follow"))

            nursery.start_soon(follow)
            await api.beat("w1")
            [run] = await api.claim("w1", wait_s=60)
            by: dict[str, Any] = {"worker_id": "w1", "attempt": 1}
            await api.event(run["id"], "STARTED", **by)
            await proxy.answers("after_event", 504)
            await proxy.answers("after_event", 200, times=3)  # though there is no news
            await api.event(run["id"], "COMPLETED", payload={"n": 1}, **by)
    assert done[0].returncode == 0, done[0].stderr
    assert b'"n": 1' in done[0].stdout


@each(IMPATIENT)
async def test_whoever_waits_himself_is_told_that_the_proxy_does_not(
    setup: Setup, tmp_path: Path
) -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            open_site(setup, tmp_path) as (api, proxy),
            AsyncGyozaClient(proxy.access) as client,
        ):
            run_id = await api.submit()
            with pytest.raises(ForeignAnswer, match="answered 504 Gateway Time-out"):
                await client.get_run(run_id, until_end=True, wait_s=60)


@each(both | LIARS)
async def test_a_run_completes_in_its_first_attempt_though_the_server_is_away_behind_it(
    setup: Setup, server: ServerProcess, tmp_path: Path, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            AsyncGyozaClient(server.url, KEY) as client,
            open_reverse_proxy(setup, port_of(server.url)) as proxy,
            open_worker(proxy.access, tmp_path, heartbeat_s=0.5) as directory,
        ):
            command = chatty(2, pauses=True)
            run_id = (await client.create_run(busybox_image, {}, command=command))["id"]
            await run_once(client, run_id, has_told("to 50"))
            async with open_pipes(directory / f"{run_id}.1") as op:
                await op.waits()
                await server.kill()
                await op.go_on()
                await op.waits()
                await op.go_on()
                await proxy.answers("/events", times=2)
                await proxy.answers("/heartbeat", times=2)
                await server.start()
            run = await run_once(client, run_id, ended)
            log = await client.get_logs(run_id)
    check_told(run, log, 2)


@pytest.mark.parametrize(
    ("setup", "says"),
    [
        (NGINX, b"A proxy in front of the server answered 502 Bad Gateway"),
        (HAPROXY, b"A proxy in front of the server answered 503 Service Unavailable"),
        (LIARS["nginx that says 200"], b"did not answer as a gyoza server does"),
        (LIARS["nginx that says 404"], b"answered 404 Not Found, not in the words"),
    ],
    ids=["nginx", "haproxy", "200", "404"],
)
async def test_people_are_told_that_it_answers_in_place_of_the_server(
    setup: Setup, says: bytes, tmp_path: Path
) -> None:
    with trio.fail_after(LIMIT_S):
        async with serving(settings_in(tmp_path)) as api:
            pass  # and away again
        async with open_reverse_proxy(setup, port_of(api.url)) as proxy:
            done = await gyoza(proxy.access, "runs", "list")
            await proxy.stop()
            gone = await gyoza(proxy.access, "runs", "list")
    assert done.returncode == gone.returncode == 3
    assert says in done.stderr
    is_proxy = b"the server behind it may be away" in done.stderr
    assert is_proxy is not (b"check GYOZA_SERVER_URL" in done.stderr)
    assert b"does not answer" in gone.stderr
    assert done.stderr.count(b"\n") == gone.stderr.count(b"\n") == 1
