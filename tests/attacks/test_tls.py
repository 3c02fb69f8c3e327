"""Attackers on the network: between a worker or client and its server, or its Docker Engine."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import trio

from gyoza.client import Access, AsyncGyozaClient, GyozaClient, InsecureServer, ServerUnreachable
from tests.containers.daemon import connect_to_engine, daemon
from tests.containers.proxy import open_proxy
from tests.images import busybox_image
from tests.support.authority import Authority, environment
from tests.support.forward_proxy import open_forward_proxy
from tests.support.small_server import SmallServer, open_small_server

__all__ = ["busybox_image"]

KEY = "k3y-nobody-may-see"
PASSWORD = "p4ssw0rd"
SLOW = 200


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "stranger")


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_low: float, _high: float) -> float:
        return 0.0

    monkeypatch.setattr("random.uniform", none)


class Listener:
    """Attributes: heard is all that clients said, once TLS, if any, had come about."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.port = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                self.heard += await stream.receive_some()
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None) -> AsyncGenerator[Listener]:
    """Somebody who has put himself in the server's place."""
    listener = Listener()
    async with trio.open_nursery() as nursery:
        [plain] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener.port = plain.socket.getsockname()[1]
        secured = plain if tls is None else trio.SSLListener(plain, tls, https_compatible=True)

        async def serve() -> None:
            await trio.serve_listeners(listener.serve, [secured])

        nursery.start_soon(serve)
        with trio.fail_after(SLOW):
            yield listener
        nursery.cancel_scope.cancel()


async def both_refuse(access: Access) -> None:
    """Both clients refuse to speak to the server."""
    with GyozaClient(access) as client, pytest.raises(ServerUnreachable):
        await trio.to_thread.run_sync(client.list_workers)
    async with AsyncGyozaClient(access) as client:
        with pytest.raises(InsecureServer):
            await client.claim("w")


async def test_somebody_in_the_middle_with_a_certificate_of_his_own_hears_no_key(
    authority: Authority, stranger: Authority
) -> None:
    for ca_file in (authority.ca_file, None):
        async with listening(stranger.server()) as listener:
            url = f"https://127.0.0.1:{listener.port}"
            await both_refuse(Access(url=url, api_key=KEY, ca_file=ca_file))
        assert bytes(listener.heard) == b""


async def test_somebody_in_the_middle_with_the_certificate_of_another_host_hears_no_key(
    authority: Authority,
) -> None:
    async with listening(authority.server("elsewhere.example")) as listener:
        url = f"https://127.0.0.1:{listener.port}"
        await both_refuse(Access(url=url, api_key=KEY, ca_file=authority.ca_file))
    assert bytes(listener.heard) == b""


async def test_somebody_in_the_middle_without_tls_hears_no_key(authority: Authority) -> None:
    async with listening(None) as listener:
        url = f"https://127.0.0.1:{listener.port}"
        await both_refuse(Access(url=url, api_key=KEY, ca_file=authority.ca_file))
    assert KEY.encode() not in listener.heard


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONHTTPSVERIFY": "0"},
        {"CURL_CA_BUNDLE": "", "REQUESTS_CA_BUNDLE": ""},
        {"GYOZA_CA_FILE": ""},
        {"GYOZA_TLS_VERIFY": "0", "GYOZA_INSECURE": "1"},
    ],
)
async def test_no_variable_switches_verification_off(
    stranger: Authority, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with listening(stranger.server()) as listener:
        await both_refuse(Access(url=f"https://127.0.0.1:{listener.port}", api_key=KEY))
    assert bytes(listener.heard) == b""


async def test_not_even_code_switches_verification_off(stranger: Authority) -> None:
    careless: Any = False
    async with listening(stranger.server()) as listener:
        url = f"https://127.0.0.1:{listener.port}"
        async with AsyncGyozaClient(url, KEY, verify=careless) as client:
            with pytest.raises(ServerUnreachable):
                await client.list_workers()
    assert bytes(listener.heard) == b""


class WorkerProcess:
    """A worker far from its server and its engine: behind a proxy, with TLS to both."""

    def __init__(self, folder: Path, variables: dict[str, Any]) -> None:
        self.id = f"tls-{uuid4().hex}"
        self.log = folder / "worker.log"
        self._key_file = folder / "api_key"
        self._key_file.write_text(KEY)
        self._key_file.chmod(0o600)
        proxies = [f"{name}_proxy" for name in ("http", "https", "all", "no")]
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name.lower() not in proxies and not name.startswith("GYOZA_")
        } | {
            "GYOZA_WORKER_ID": self.id,
            "GYOZA_WORK_DIR": str(folder / "work"),
            "GYOZA_PULL_POLICY": "never",
            "GYOZA_HEARTBEAT": "0.2",
            **variables,
        }

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[trio.Process]:
        """Start it; it is drained, or at worst killed, at the end of the block."""
        command = "import sys; from gyoza.cli.main import main; sys.exit(main())"
        flags = ["--api-key-file", str(self._key_file), "--log-level", "debug"]
        with self.log.open("ab") as log:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", command, "worker", "start", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            process.kill()
            with trio.move_on_after(10, shield=True):
                await process.wait()
            print(self.log.read_text())  # noqa: T201
            with daemon() as engine:
                for container in self.containers():
                    engine.delete(f"/containers/{container['Id']}", params={"force": 1, "v": 1})

    def containers(self) -> list[dict[str, Any]]:
        """Return what `docker inspect` says of the containers it has."""
        filters = json.dumps({"label": [f"gyoza.worker_id={self.id}"]})
        with daemon() as engine:
            found = engine.get("/containers/json", params={"all": 1, "filters": filters}).json()
            return [engine.get(f"/containers/{one['Id']}/json").json() for one in found]


@pytest.mark.docker
async def test_a_worker_behind_a_proxy_with_tls_to_server_and_engine_executes_and_shows_nothing(
    authority: Authority, tmp_path: Path, busybox_image: str
) -> None:
    own = authority.issue("worker@example.org")
    docker = tmp_path / "docker"
    docker.mkdir()
    for name, source in {
        "ca.pem": authority.ca_file,
        "cert.pem": own.cert,
        "key.pem": own.key,
    }.items():
        (docker / name).write_bytes(Path(source).read_bytes())  # noqa: ASYNC240
    to_engine = authority.server(clients_of=authority)
    to_server = authority.server("gyoza.test", clients_of=authority)
    with trio.fail_after(SLOW):
        async with (
            open_small_server() as server,
            open_proxy(partial(_connect, server), to_server) as secured,
            open_proxy(connect_to_engine, to_engine) as engine,
            open_forward_proxy() as proxy,
        ):
            proxy.authorization = "Proxy-Authorization: Basic dXNlcjpwNHNzdzByZA=="
            worker = WorkerProcess(
                tmp_path,
                environment(authority.ca_file, own)
                | {
                    "GYOZA_SERVER_URL": f"https://user:{PASSWORD}@gyoza.test:{secured.port}",
                    "HTTPS_PROXY": proxy.url.replace("//", f"//user:{PASSWORD}@"),
                    "DOCKER_HOST": f"tcp://127.0.0.1:{engine.port}",
                    "DOCKER_TLS_VERIFY": "1",
                    "DOCKER_CERT_PATH": str(docker),
                },
            )
            script = "env; echo ready; exec sleep 60"
            server.submit("r1", busybox_image, command=["sh", "-c", script])
            server.submit("r2", busybox_image, command=["true"])
            async with worker.running() as process:
                await server.wait_for_event("STARTED", "r1")
                ended = await server.wait_for_event("COMPLETED", "r2")
                inspected = json.dumps(worker.containers())
                shown = Path(f"/proc/{process.pid}/cmdline").read_text()  # noqa: ASYNC240
                server.cancel("r1")
                await server.wait_until(lambda: not server.heartbeats[-1]["running_ops"])
    assert ended["summary"]["exit_code"] == 0
    assert set(proxy.asked) == {f"CONNECT gyoza.test:{secured.port} HTTP/1.1"}
    assert len(proxy.asked) >= 2  # heartbeats have a connection of their own
    assert f'"gyoza.server": "https://gyoza.test:{secured.port}"' in inspected
    told = {"inspect": inspected, "ps": shown, "log": worker.log.read_text()}
    for where, text in told.items():
        for secret in (KEY, PASSWORD, "dXNlcjpwNHNzdzByZA=="):
            assert secret not in text, where


async def _connect(server: SmallServer) -> trio.SocketStream:
    address = urlsplit(server.url)
    return await trio.open_tcp_stream(address.hostname or "", address.port or 0)


@pytest.mark.docker
async def test_a_worker_whose_server_cannot_be_trusted_says_why_and_tries_on(
    authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    tried, tries = trio.open_memory_channel[None](100)

    async def connect() -> trio.SocketStream:
        await tried.send(None)
        return await _connect(server)

    with trio.fail_after(SLOW):
        async with (
            open_small_server() as server,
            open_proxy(connect, stranger.server()) as middle,
        ):
            url = {"GYOZA_SERVER_URL": f"https://127.0.0.1:{middle.port}"}
            worker = WorkerProcess(tmp_path, environment(authority.ca_file) | url)
            async with worker.running():
                for _ in range(3):
                    await tries.receive()
            assert server.requests == []
    said = worker.log.read_text()
    assert "from an authority that is not known here; name the authority's file" in said
    assert "retrying: The certificate of the server" in said
