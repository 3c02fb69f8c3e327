"""Proxies on the way to the server, named by the usual variables."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from gyoza.client import Access, AsyncGyozaClient, GyozaClient, InvalidProxy, ServerUnreachable
from gyoza.client.proxies import proxy_of
from tests.support.authority import Authority
from tests.support.forward_proxy import ForwardProxy, open_forward_proxy

from .scripted import Answer, Scripted, scripted_server

WELL = {"status": "ok"}
BASIC = "Proxy-Authorization: Basic dXNlcjpzM2NyZXQ="  # user:s3cret


@pytest.fixture
async def proxy() -> AsyncGenerator[ForwardProxy]:
    async with open_forward_proxy() as proxy:
        yield proxy


@pytest.fixture(params=["blocking", "trio"])
def ask(request: pytest.FixtureRequest, impatient: None) -> Callable[..., Any]:
    """Asks a server for its health, and then who works: by both clients."""

    async def ask(url: str, **access: Any) -> Any:
        with trio.fail_after(200):
            if request.param == "blocking":
                with GyozaClient(Access(url=url, api_key="key", **access)) as client:
                    return await trio.to_thread.run_sync(client.health)
            async with AsyncGyozaClient(Access(url=url, api_key="key", **access)) as client:
                return await client.health()

    return ask


@pytest.fixture
def server() -> Any:
    with scripted_server(Answer(WELL)) as server:
        yield server


def named(server: Scripted, name: str = "gyoza.test") -> str:
    """The server's URL by a name that only the proxy knows."""
    return server.url.replace("127.0.0.1", name)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_http_goes_through_the_proxy_with_the_whole_url(
    ask: Any,
    server: Scripted,
    proxy: ForwardProxy,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, proxy.url)
    assert await ask(named(server)) == WELL
    assert proxy.asked == [f"GET {named(server)}/health HTTP/1.1"]
    assert server.requests[0].headers["X-API-Key"] == "key"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_https_goes_through_a_tunnel_in_which_the_proxy_sees_nothing(
    ask: Any,
    proxy: ForwardProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
) -> None:
    authority = Authority(tmp_path / "authority")
    own = authority.issue("worker@example.org")
    monkeypatch.setenv(variable, proxy.url)
    tls = authority.server("gyoza.test", clients_of=authority)
    with scripted_server(Answer(WELL), tls=tls) as server:
        answer = await ask(
            named(server), ca_file=authority.ca_file, client_cert=own.cert, client_key=own.key
        )
    assert answer == WELL
    assert proxy.asked == [f"CONNECT {urlsplit(named(server)).netloc} HTTP/1.1"]
    assert server.requests[0].headers["X-API-Key"] == "key"


async def test_a_proxy_gets_the_password_in_its_url(
    ask: Any, server: Scripted, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.authorization = BASIC
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//user:s3cret@"))
    assert await ask(named(server)) == WELL
    assert server.requests[0].headers["Proxy-Authorization"] is not None  # it is a simple proxy


async def test_a_proxy_that_refuses_is_told_without_its_password(
    ask: Any, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.authorization = BASIC
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:wr0ng@"))
    with pytest.raises(ServerUnreachable, match=r"407 .*check HTTPS_PROXY") as caught:
        await ask("https://gyoza.test")
    assert "wr0ng" not in str(caught.value)


async def test_a_proxy_that_is_not_there_is_told_as_such(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:s3cret@127.0.0.1:9")
    with pytest.raises(ServerUnreachable, match=r"through the proxy .*NO_PROXY") as caught:
        await ask("http://gyoza.test")
    assert "s3cret" not in str(caught.value)


PROXY = "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("http://gyoza.test", "gyoza.test"),
        ("http://gyoza.test", "other.test, gyoza.test"),
        ("http://gyoza.test", "*"),
        ("http://GYOZA.test", "Gyoza.Test"),
        ("https://a.gyoza.test", ".gyoza.test"),
        ("https://a.gyoza.test", "gyoza.test"),
        ("http://gyoza.test:5555", "gyoza.test:5555"),
        ("https://gyoza.test", "gyoza.test:443"),
        ("http://10.1.2.3:5555", "10.1.2.3"),
        ("http://10.1.2.3:5555", "*"),
        ("http://10.1.2.3:5555", "10.1.2.3:5555"),
        ("http://10.1.2.3:5555", "10.0.0.0/8"),
        ("http://10.1.2.3:5555", "192.168.0.0/16 , 10.1.2.9/24"),
        ("http://[fd00::5]:5555", "fd00::/8"),
        ("http://[fd00::5]:5555", "fd00:0::5"),
        ("http://[fd00::5]:5555", "[fd00::5]"),
        ("http://[fd00::5]:5555", "[fd00::5]:5555"),
        ("http://localhost:5555", ""),
        ("http://127.0.0.1", ""),
        ("http://127.8.0.1", ""),
        ("http://[::1]:5555", ""),
    ],
)
def test_what_no_proxy_names_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_of(httpx.URL(url)) is None


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("http://gyoza.test", "a.gyoza.test"),
        ("http://notgyoza.test", "gyoza.test"),
        ("http://gyoza.test:5555", "gyoza.test:5556"),
        ("http://10.1.2.3:5555", "10.1.2.3:5556"),
        ("http://10.1.2.3:5555", "10.1.2.30,11.0.0.0/8,10.1.2.0/33,/,,10.0.0.0/8/8"),
        ("http://[fd00::5]:5555", "10.0.0.0/8,[fd00::5]:5556"),
        ("http://gyoza.test", "10.0.0.0/8"),
    ],
)
def test_all_else_is_reached_by_the_proxy(
    monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_of(httpx.URL(url)) == PROXY


def test_a_proxy_may_be_named_without_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy.test:3128")
    assert proxy_of(httpx.URL("http://gyoza.test")) == PROXY
    assert proxy_of(httpx.URL("https://gyoza.test")) is None


async def test_a_server_in_a_network_of_no_proxy_is_asked_directly(
    ask: Any, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "0.0.0.0/8")
    with pytest.raises(ServerUnreachable, match="set GYOZA_SERVER_URL"):  # nothing listens there
        await ask("http://0.0.0.0:9")
    assert proxy.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_this_machine_is_reached_directly(
    ask: Any, server: Scripted, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    assert await ask(named(server, host)) == WELL
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("socks5://user:s3cret@127.0.0.1:9", "needs the package socksio"),
        ("gopher://user:s3cret@127.0.0.1:9", "is no URL like http://"),
        ("http://user:s3cret@[::1", "is no URL like http://"),
    ],
)
async def test_a_proxy_of_another_kind_is_told_without_its_password(
    ask: Any, monkeypatch: pytest.MonkeyPatch, url: str, sentence: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", url)
    with pytest.raises(InvalidProxy, match=sentence) as caught:
        await ask("http://gyoza.test")
    assert "s3cret" not in str(caught.value)
