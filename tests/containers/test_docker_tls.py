"""An engine on the network: spoken to over TLS with certificates on both sides, or not at all."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.engine import ContainerExit
from gyoza.worker.errors import EngineUnavailable
from tests.containers.bench import Bench, read_to_end
from tests.containers.daemon import connect_to_engine
from tests.containers.proxy import open_proxy
from tests.support.authority import Authority, Files

SLOW = 200


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "stranger")


Configure = Callable[[str | None, Files | None], None]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Sets the Docker variables to files of these names, as `docker` wants them."""

    def configure(ca_file: str | None, own: Files | None) -> None:
        folder = tmp_path / "docker"
        folder.mkdir(exist_ok=True)
        files = {"ca.pem": ca_file, "cert.pem": own and own.cert, "key.pem": own and own.key}
        for name, source in files.items():
            if source is not None:
                (folder / name).write_bytes(Path(source).read_bytes())
        monkeypatch.setenv("DOCKER_CERT_PATH", str(folder))
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")

    return configure


async def why_not(port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a person reads who asks the engine at this port."""
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
    async with open_docker_engine(deadline_s=10) as engine:
        with pytest.raises(EngineUnavailable) as caught:
            await engine.info()
    said = str(caught.value)
    assert said.count("\n") == 0
    return said


async def refusal(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a person reads whose engine is behind this; it gets no request."""
    connections: list[trio.abc.ReceiveStream] = []

    async def connect() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        connections.append(theirs)
        return ours

    with trio.fail_after(SLOW):
        async with open_proxy(connect, tls) as proxy:
            said = await why_not(proxy.port, monkeypatch)
        for connection in connections:
            assert await connection.receive_some() == b""
    return said


async def test_an_engine_of_another_authority_gets_no_request(
    authority: Authority,
    stranger: Authority,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(authority.ca_file, authority.issue("worker@example.org"))
    said = await refusal(stranger.server(), monkeypatch)
    assert "check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH" in said
    assert "certificate" in said


async def test_an_engine_by_another_name_gets_no_request(
    authority: Authority, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(authority.ca_file, authority.issue("worker@example.org"))
    said = await refusal(authority.server("engine.example"), monkeypatch)
    assert "check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH" in said


async def test_an_engine_that_does_not_know_the_workers_certificate_is_told(
    authority: Authority,
    stranger: Authority,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(authority.ca_file, stranger.issue("worker@example.org"))
    said = await refusal(authority.server(clients_of=authority), monkeypatch)
    assert "DOCKER_CERT_PATH" in said


async def test_a_worker_without_a_certificate_is_told_which_files_are_missing(
    authority: Authority, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(authority.ca_file, None)
    said = await refusal(authority.server(clients_of=authority), monkeypatch)
    assert said.startswith("The Docker settings cannot be used: ")


async def test_an_engine_without_tls_is_told_when_tls_is_wanted(
    authority: Authority, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(authority.ca_file, authority.issue("worker@example.org"))

    async def connect() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        return ours

    with trio.fail_after(SLOW):
        async with open_proxy(connect) as proxy:
            said = await why_not(proxy.port, monkeypatch)
    assert "check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH" in said


async def test_tls_that_would_believe_any_engine_is_refused(
    authority: Authority, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(authority.ca_file, authority.issue("worker@example.org"))
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("DOCKER_TLS_VERIFY")
        else:
            monkeypatch.setenv("DOCKER_TLS_VERIFY", value)
        said = await refusal(authority.server(), monkeypatch)
        assert said.endswith("set DOCKER_TLS_VERIFY=1.")


@pytest.mark.docker
async def test_the_whole_way_of_a_container_goes_over_tls(
    authority: Authority,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    busybox_image: str,
) -> None:
    configure(authority.ca_file, authority.issue("worker@example.org"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")  # has no say here
    output = bytearray()
    with trio.fail_after(SLOW):
        async with open_proxy(connect_to_engine, authority.server(clients_of=authority)) as proxy:
            monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{proxy.port}")
            async with open_docker_engine(deadline_s=20) as engine:
                bench = Bench(engine, busybox_image)
                container = await engine.create(bench.spec("writes-when-asked"))
                try:
                    async with engine.attach(container) as stream:
                        await engine.start(container)
                        while b"ready" not in output:
                            output += await stream.receive()
                        with trio.move_on_after(0.2) as given_up:  # which ends its connection
                            await engine.wait(container)
                        assert given_up.cancelled_caught
                        await engine.ask_to_stop(container)
                        while part := await stream.receive():
                            output += part
                    assert await engine.wait(container) == ContainerExit(0)
                    async with engine.logs(container, follow=False) as kept:
                        assert b"asked" in await read_to_end(kept)
                finally:
                    with trio.move_on_after(10, shield=True):
                        await engine.remove(container)
    assert b"asked" in output
