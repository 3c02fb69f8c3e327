"""The rules that docs/hardening.md has for a proxy before Docker's socket, put to work."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from gyoza.worker.containers.docker_network import OwnNetwork
from gyoza.worker.containers.docker_threads import DockerThreads
from tests.containers.daemon import connect_to_engine
from tests.e2e.conftest import OpenSystem

pytestmark = pytest.mark.docker

PAGE = Path(__file__).parents[2] / "docs" / "hardening.md"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

KEPT_OUT = [
    ("GET", "/v1.41/volumes"),
    ("GET", "/v1.41/images/json"),
    ("GET", "/v1.41/images/busybox/get"),
    ("GET", "/v1.41/containers/some/archive"),
    ("POST", "/v1.41/containers/some/exec"),
    ("POST", "/v1.41/containers/prune"),
    ("POST", "/v1.41/build"),
    ("POST", "/v1.41/networks/create"),
    ("DELETE", "/v1.41/images/busybox"),
    ("DELETE", "/v1.41/volumes/some"),
]


@dataclass
class Rules:
    """The access rules of the page, read as HAProxy does."""

    methods: dict[str, str] = field(default_factory=dict[str, str])
    paths: dict[str, str] = field(default_factory=dict[str, str])
    allowed: list[list[str]] = field(default_factory=list[list[str]])

    @classmethod
    def of_page(cls) -> "Rules":
        rules = cls()
        for words in map(str.split, PAGE.read_text().splitlines()):
            match words:
                case ["acl", name, "method", method]:
                    rules.methods[name] = method
                case ["acl", name, "path_reg", pattern]:
                    rules.paths[name] = pattern
                case ["http-request", "deny", "unless", *conditions]:
                    rules.allowed = [both.split() for both in " ".join(conditions).split(" or ")]
                case _:
                    pass
        return rules

    def allow(self, method: str, path: str) -> bool:
        return any(
            self.methods[by] == method and re.search(self.paths[to], path)
            for by, to in self.allowed
        )


@asynccontextmanager
async def open_filter(rules: Rules, denied: list[str]) -> AsyncGenerator[str]:
    """Let through what the rules allow; the adapter sends one request on each connection."""

    async def serve(client: trio.abc.Stream) -> None:
        async with client:
            head = b""
            while b"\r\n" not in head:
                head += await client.receive_some()
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            if not rules.allow(method, target.partition("?")[0]):
                denied.append(f"{method} {target}")
                await client.send_all(FORBIDDEN)
                return
            async with await connect_to_engine() as engine, trio.open_nursery() as nursery:
                await engine.send_all(head)
                nursery.start_soon(_relay, client, engine)
                await _relay(engine, client)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def _relay(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
    try:
        async for data in source:
            await target.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def test_a_worker_needs_no_more_of_the_engine_than_the_proxy_on_the_page_lets_through(
    open_system: OpenSystem, busybox_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied: list[str] = []
    with trio.fail_after(200):
        await OwnNetwork(DockerThreads(1, 30)).name()  # the page has it made by hand
        async with open_filter(Rules.of_page(), denied) as host:
            monkeypatch.setenv("DOCKER_HOST", host)
            async with open_system() as system:
                well = await system.run(busybox_image, command=["echo", "well"])
                long = await system.run(busybox_image, command=["sleep", "1000"], timeout_s=0.5)
                assert (await system.end_of(well))["state"] == "COMPLETED"
                assert await system.client.get_logs(well) == "well\n"
                summary = (await system.end_of(long))["execution_summary"]
                assert summary["reason"] == "TIMED_OUT"
                missing = await system.run("gyoza-test-never-built:latest")
                summary = (await system.end_of(missing))["execution_summary"]
                assert summary["reason"] == "IMAGE_PULL"
    assert denied == []


@pytest.mark.parametrize(("method", "path"), KEPT_OUT)
def test_the_proxy_on_the_page_keeps_out(method: str, path: str) -> None:
    assert not Rules.of_page().allow(method, path)
