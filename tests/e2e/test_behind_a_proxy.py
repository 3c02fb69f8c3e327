"""What docs/behind-a-reverse-proxy.md says, with the nginx and the HAProxy of Debian."""

import json
import re
import ssl
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from gyoza.client import ApiError, AsyncGyozaClient, GyozaClient
from gyoza.server.service import MAX_WAIT_S
from tests.images import busybox_image
from tests.server.api import linked, serving, settings_in
from tests.support.holding_proxy import open_holding_proxy
from tests.support.proxied import gyoza, open_site, open_worker, port_of
from tests.support.reverse_proxy import (
    HAPROXY,
    HTTP_1_0,
    NGINX,
    Setup,
    blocks,
    each,
    open_reverse_proxy,
)

__all__ = ["busybox_image"]

pytestmark = pytest.mark.docker  # which is where both proxies are installed

LIMIT_S = 200
MIB = 1024 * 1024

TLS = {"nginx": replace(NGINX, tls=True), "haproxy": replace(HAPROXY, tls=True)}
SETUPS = {
    "nginx": NGINX,
    "nginx with TLS": TLS["nginx"],
    "nginx with HTTP 1.0": HTTP_1_0,
    "nginx that takes the prefix off": replace(NGINX, prefix="taken-off"),
    "nginx that passes the prefix on": replace(TLS["nginx"], prefix="passed-on"),
    "haproxy": HAPROXY,
    "haproxy with TLS": TLS["haproxy"],
    "haproxy that takes the prefix off": replace(TLS["haproxy"], prefix="taken-off"),
    "haproxy that passes the prefix on": replace(HAPROXY, prefix="passed-on"),
}
both = each({"nginx": NGINX, "haproxy": HAPROXY})


@each(SETUPS)
async def test_a_run_is_submitted_executed_and_followed_through_it(
    setup: Setup, tmp_path: Path, busybox_image: str
) -> None:
    script = 'echo words; cp "$GYOZA_INPUT_JSON_PATH" "$GYOZA_OUTPUT_PATH"'
    options = ("-i", "n=3", "--follow", "--", "sh", "-c", script)
    with trio.fail_after(LIMIT_S):
        async with (
            open_site(setup, tmp_path) as (_, proxy),
            AsyncGyozaClient(proxy.access) as client,
        ):
            async with open_worker(proxy.access, tmp_path):
                done = await gyoza(proxy.access, "run", busybox_image, *options)
            [run] = (await client.list_runs())["data"]
            log = await client.get_logs(run["id"])
    assert done.returncode == 0, done.stderr
    assert b"words\n" in done.stdout
    assert b'"n": 3' in done.stdout
    assert b"Traceback" not in done.stderr
    assert (run["state"], run["current_attempt"]) == ("COMPLETED", 1)
    assert log == "words\n"


@each({name: setup for name, setup in SETUPS.items() if setup.prefix})
async def test_documentation_and_health_are_below_the_path(setup: Setup, tmp_path: Path) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_site(setup, tmp_path) as (_, proxy):
            url = proxy.access.address
            trusts = ssl.create_default_context(cafile=proxy.access.ca_file)
            async with httpx.AsyncClient(base_url=url, verify=trusts, timeout=60) as browser:
                docs = await browser.get("/docs")
                programs = [await browser.get(docs.url.join(p)) for p in linked(docs.text)]
                [described] = re.findall(r"\burl: '([^']+)'", programs[-1].text)
                description = (await browser.get(docs.url.join(described))).json()
                health = await browser.get("/health")
                readiness = await browser.get("/readyz")
    assert "/runs" in description["paths"]
    assert description["servers"] == [{"url": "/gyoza"}]
    assert health.json()["status"] == readiness.json()["status"] == "ok"


@pytest.mark.parametrize(
    ("root_path", "asked", "says"),
    [
        ("", "/gyoza", b"There is nothing at this address"),
        ("/gyoza", "", b"answered 404 Not Found, not in the words of a gyoza server"),
    ],
    ids=["the server", "the client"],
)
async def test_whoever_asks_without_the_path_is_told(
    root_path: str, asked: str, says: bytes, tmp_path: Path
) -> None:
    setup = replace(NGINX, prefix="passed-on")
    with trio.fail_after(LIMIT_S):
        async with open_site(setup, tmp_path, root_path=root_path) as (_, proxy):
            url = proxy.access.address.removesuffix("/gyoza") + asked
            done = await gyoza(replace(proxy.access, url=url), "runs", "list")
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize(
    ("setup", "says"),
    [
        (TLS["nginx"], b"answered 400 Bad Request, not in the words of a gyoza server"),
        (TLS["haproxy"], b"GYOZA_CLIENT_CERT"),
    ],
    ids=["nginx", "haproxy"],
)
async def test_clients_show_it_certificates(setup: Setup, says: bytes, tmp_path: Path) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_site(replace(setup, asks_for_certificates=True), tmp_path) as (_, proxy):
            shown = await gyoza(proxy.access, "runs", "list")
            stranger = replace(proxy.access, client_cert=None, client_key=None)
            not_shown = await gyoza(stranger, "runs", "list")
    assert shown.returncode == 0, shown.stderr
    assert not_shown.returncode == 3
    assert says in not_shown.stderr


@each(
    {name: SETUPS[name] for name in ("nginx", "nginx with HTTP 1.0", "nginx with TLS", "haproxy")}
)
async def test_inputs_of_five_mebibytes_arrive_and_come_back(setup: Setup, tmp_path: Path) -> None:
    text = "gyoza" * MIB
    (tmp_path / "text").write_text(text)

    with trio.fail_after(LIMIT_S):
        async with (
            open_site(setup, tmp_path) as (_, proxy),
            AsyncGyozaClient(proxy.access) as client,
        ):

            def submit() -> str:
                with GyozaClient(proxy.access) as blocking:
                    return blocking.create_run("image", {"text": text})["id"]

            by_blocking = await trio.to_thread.run_sync(submit)
            by_trio = (await client.create_run("image", {"text": text}))["id"]
            done = await gyoza(proxy.access, "run", "image", "-i", f"text=@{tmp_path / 'text'}")
            by_command = done.stdout.decode().strip()
            runs = [await client.get_run(run) for run in (by_blocking, by_trio, by_command)]
    assert all(run["inputs"] == {"text": text} for run in runs)


@both
async def test_the_server_itself_says_that_a_body_is_too_large(
    setup: Setup, tmp_path: Path
) -> None:
    with trio.fail_after(LIMIT_S):
        async with (
            open_site(setup, tmp_path) as (_, proxy),
            AsyncGyozaClient(proxy.access) as client,
        ):
            with pytest.raises(ApiError) as refused:
                await client.create_run("image", {"text": "x" * 17 * MIB})
    assert str(refused.value) == "The body is larger than 16 MiB."


async def test_nginx_left_to_itself_refuses_more_than_a_mebibyte(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x" * 2 * MIB)
    setup = NGINX.but(("    client_max_body_size 32m;\n", ""))
    with trio.fail_after(LIMIT_S):
        async with open_site(setup, tmp_path) as (_, proxy):
            done = await gyoza(proxy.access, "run", "image", "-i", f"text=@{tmp_path / 'text'}")
    assert done.returncode == 3
    assert b"answered 413 Request Entity Too Large" in done.stderr


@both
async def test_long_polls_are_answered_as_soon_as_there_is_something(
    setup: Setup, tmp_path: Path
) -> None:
    answers: list[Any] = []

    async def ask(question: Callable[[], Any]) -> None:
        answers.append(await question())

    with trio.fail_after(LIMIT_S):
        async with (
            open_site(setup, tmp_path) as (api, proxy),
            AsyncGyozaClient(proxy.access) as client,
        ):
            await api.beat("w1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, partial(client.claim, "w1", wait_s=60))
                nursery.start_soon(ask, partial(client.get_events, "one", wait_s=60))
                run_id = await api.submit(event_delivery={"topic": "one"})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, partial(client.get_run, run_id, until_end=True, wait_s=60))
                await api.post(f"/runs/{run_id}/cancel")
    assert all(run_id in json.dumps(answer) for answer in answers)
    assert answers[-1]["state"] == "CANCELLED"
    assert {status for *_, status in proxy.answered} == {"200"}


def test_every_time_out_of_the_page_is_longer_than_a_long_poll() -> None:
    text = "".join(blocks().values())
    limits = re.findall(r"(?:proxy_read_timeout|timeout client|timeout server) +(\d+)s", text)
    assert len(limits) == 3
    assert all(float(limit) > MAX_WAIT_S + 10 for limit in limits)


@both
async def test_a_claim_whose_client_is_gone_gets_no_run(setup: Setup, tmp_path: Path) -> None:
    claiming = trio.CancelScope()

    async def claim(client: AsyncGyozaClient) -> None:
        with claiming:
            await client.claim("w1", wait_s=60)

    with trio.fail_after(LIMIT_S):
        async with serving(settings_in(tmp_path)) as api:
            to_server = partial(trio.open_tcp_stream, "127.0.0.1", port_of(api.url))
            async with (
                open_holding_proxy(to_server) as between,
                open_reverse_proxy(setup, between.port) as proxy,
                AsyncGyozaClient(proxy.access) as client,
                trio.open_nursery() as nursery,
            ):
                await api.beat("w1")
                claimed = between.watch(b"/workers/w1/claim")
                nursery.start_soon(claim, client)
                await claimed.wait()
                claiming.cancel()
                await proxy.answers("/workers/w1/claim")
                run_id = await api.submit()
                await api.beat("w2")
                [run] = await api.claim("w2", wait_s=30)
    assert run["id"] == run_id


@both
async def test_clients_with_good_keys_share_its_address(setup: Setup, tmp_path: Path) -> None:
    workers = [f"w{number}" for number in range(16)]
    claimed: list[str] = []

    async def claim(client: AsyncGyozaClient, worker: str) -> None:
        claimed.extend(run["id"] for run in await client.claim(worker, wait_s=60))

    with trio.fail_after(LIMIT_S):
        async with (
            open_site(setup, tmp_path, max_connections_per_address=4) as (api, proxy),
            AsyncGyozaClient(proxy.access) as client,
            trio.open_nursery() as nursery,
        ):
            for worker in workers:
                await client.heartbeat(worker, {"cpu_cores": 1})
                nursery.start_soon(claim, client, worker)
            await client.list_workers()
            runs = [await api.submit() for _ in workers]
    assert sorted(claimed) == sorted(runs)
    assert {status for *_, status in proxy.answered} == {"200"}


@both
async def test_it_keeps_its_connections_to_the_server(setup: Setup, tmp_path: Path) -> None:
    opened = 0

    async def to_server() -> trio.abc.Stream:
        nonlocal opened
        opened += 1
        return await trio.open_tcp_stream("127.0.0.1", port_of(api.url))

    if setup is HAPROXY:  # whose checks have connections of their own
        setup = setup.but((" check inter 2s fall 3 rise 1", ""))
    with trio.fail_after(LIMIT_S):
        async with (
            serving(settings_in(tmp_path)) as api,
            open_holding_proxy(to_server) as between,
            open_reverse_proxy(setup, between.port) as proxy,
            AsyncGyozaClient(proxy.access) as client,
        ):
            for _ in range(20):
                await client.list_workers()
    assert opened == 1


async def test_a_proxy_that_compresses_does_not_do_so_for_our_clients(tmp_path: Path) -> None:
    eager = "gzip on; gzip_min_length 1; gzip_proxied any; gzip_types *;"
    with trio.fail_after(LIMIT_S):
        async with (
            open_site(NGINX.but(("gzip off;", eager)), tmp_path) as (_, proxy),
            AsyncGyozaClient(proxy.access) as client,
        ):
            run = await client.create_run("image", {"text": "gyoza" * 1000})
            assert (await client.get_run(run["id"]))["inputs"] == {"text": "gyoza" * 1000}
