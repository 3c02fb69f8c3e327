"""TLS to the server: own authorities, client certificates, and what a person reads if it fails."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

from gyoza.client import (
    Access,
    AsyncGyozaClient,
    CredentialsError,
    GyozaClient,
    InsecureServer,
    ServerUnreachable,
)
from gyoza.client.connection import Connection
from tests.support.authority import Authority, environment

from .scripted import Answer, Scripted, scripted_server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "stranger")


class Serve(Protocol):
    def __call__(self, tls: ssl.SSLContext | None) -> Scripted: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda tls: stack.enter_context(scripted_server(Answer({"status": "ok"}), tls=tls))


@pytest.fixture(params=["blocking", "trio"])
def ask(request: pytest.FixtureRequest, impatient: None) -> Any:
    """Asks a server for its health: by both clients, one after the other."""

    async def ask(url: str, **files: Any) -> Any:
        access = Access(url=url, **files)
        with trio.fail_after(200):
            if request.param == "blocking":
                with GyozaClient(access) as client:
                    return await trio.to_thread.run_sync(client.health)
            async with AsyncGyozaClient(access) as client:
                return await client.health()

    return ask


def copy(target: Path, *sources: str) -> None:
    target.write_bytes(b"".join(Path(source).read_bytes() for source in sources))


async def test_a_server_of_an_own_authority_is_believed(
    ask: Any, serve: Serve, authority: Authority
) -> None:
    server = serve(authority.server())
    assert await ask(server.url, ca_file=authority.ca_file) == {"status": "ok"}


async def test_the_files_can_be_named_by_variables(
    ask: Any, serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = authority.issue("worker@example.org")
    for name, value in environment(authority.ca_file, own).items():
        monkeypatch.setenv(name, value)
    server = serve(authority.server(clients_of=authority))
    assert await ask(server.url) == {"status": "ok"}


async def test_certificate_and_key_may_be_in_one_file(
    ask: Any, serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    own = authority.issue("worker@example.org")
    both = tmp_path / "both.pem"
    copy(both, own.key, own.cert)
    server = serve(authority.server(clients_of=authority))
    answer = await ask(server.url, ca_file=authority.ca_file, client_cert=str(both))
    assert answer == {"status": "ok"}


async def test_a_server_of_an_unknown_authority_is_told(
    ask: Any, serve: Serve, authority: Authority, stranger: Authority
) -> None:
    server = serve(stranger.server())
    for ca_file in (authority.ca_file, None):
        with pytest.raises(InsecureServer, match=r"not known here; name .* GYOZA_CA_FILE"):
            await ask(server.url, ca_file=ca_file)
    assert server.requests == []


async def test_a_certificate_for_another_name_is_told(
    ask: Any, serve: Serve, authority: Authority
) -> None:
    server = serve(authority.server("gyoza.example"))
    with pytest.raises(InsecureServer, match=r"for another name .* GYOZA_SERVER_URL"):
        await ask(server.url, ca_file=authority.ca_file)


async def test_a_certificate_that_has_expired_is_told(
    ask: Any, serve: Serve, authority: Authority
) -> None:
    server = serve(authority.server(until=datetime(2020, 1, 1, tzinfo=UTC)))
    with pytest.raises(InsecureServer, match=r"not valid now .*has expired.*clock"):
        await ask(server.url, ca_file=authority.ca_file)


async def test_a_client_without_a_certificate_is_told_that_the_server_wants_one(
    ask: Any, serve: Serve, authority: Authority
) -> None:
    server = serve(authority.server(clients_of=authority))
    with pytest.raises(ServerUnreachable, match=r"this client's certificate .*GYOZA_CLIENT_CERT"):
        await ask(server.url, ca_file=authority.ca_file)
    assert server.requests == []


async def test_a_client_whose_certificate_the_server_does_not_know_is_told(
    ask: Any, serve: Serve, authority: Authority, stranger: Authority
) -> None:
    own = stranger.issue("worker@example.org")
    server = serve(authority.server(clients_of=authority))
    with pytest.raises(ServerUnreachable, match=r"this client's certificate .*GYOZA_CLIENT_CERT"):
        await ask(server.url, ca_file=authority.ca_file, client_cert=own.cert, client_key=own.key)


async def test_a_server_without_tls_is_told(ask: Any, serve: Serve) -> None:
    server = serve(None)
    with pytest.raises(InsecureServer, match="speaks no TLS; correct GYOZA_SERVER_URL"):
        await ask(server.url.replace("http:", "https:"))


async def test_a_server_that_knows_only_old_tls_is_refused(
    ask: Any, serve: Serve, authority: Authority
) -> None:
    old = authority.server()
    with pytest.deprecated_call():
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    server = serve(old)
    with pytest.raises(InsecureServer, match="No secure connection"):
        await ask(server.url, ca_file=authority.ca_file)


@pytest.mark.parametrize("which", ["ca_file", "client_cert", "client_key"])
def test_a_file_that_is_not_there_is_named_with_its_setting(
    authority: Authority, which: str
) -> None:
    own = authority.issue("worker@example.org")
    files: dict[str, Any] = {
        "ca_file": authority.ca_file,
        "client_cert": own.cert,
        "client_key": own.key,
    }
    files[which] = "/nowhere.pem"
    setting = f"GYOZA_{which.upper()}"
    with pytest.raises(CredentialsError, match=rf"/nowhere\.pem .*No such file.*{setting}"):
        Connection.resolve(Access(url="https://localhost", **files))


def test_files_that_hold_something_else_are_named_with_their_settings(
    authority: Authority, tmp_path: Path
) -> None:
    resolve = partial(resolved, ca_file=authority.ca_file)
    own, other = authority.issue("worker@example.org"), authority.issue("other@example.org")
    junk = tmp_path / "junk"
    junk.write_text("junk")
    with pytest.raises(CredentialsError, match=r"no certificates in PEM; .*GYOZA_CA_FILE"):
        resolve(ca_file=str(junk))
    with pytest.raises(CredentialsError, match=r"no client certificate and its key .*CLIENT_KEY"):
        resolve(client_cert=own.cert, client_key=other.key)
    with pytest.raises(CredentialsError, match="a client key but no certificate"):
        resolve(client_key=own.key)


def resolved(**files: Any) -> Connection:
    return Connection.resolve(Access(url="https://localhost", **files))


def test_a_key_that_needs_a_password_does_not_wait_for_one(
    authority: Authority, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    own = authority.issue("worker@example.org")
    key = serialization.load_pem_private_key(Path(own.key).read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CredentialsError, match="is encrypted"):
        resolved(client_cert=own.cert, client_key=str(locked))


async def test_a_renewed_certificate_is_shown_without_a_restart(
    serve: Serve, authority: Authority, stranger: Authority, impatient: None
) -> None:
    own, renewed = stranger.issue("worker@example.org"), authority.issue("worker@example.org")
    server = serve(authority.server(clients_of=authority))
    access = Access(
        url=server.url, ca_file=authority.ca_file, client_cert=own.cert, client_key=own.key
    )
    with trio.fail_after(200):
        async with AsyncGyozaClient(access) as client:
            with pytest.raises(ServerUnreachable):
                await client.health()
            copy(Path(own.cert), renewed.cert)
            with pytest.raises(ServerUnreachable):  # half of it is new
                await client.health()
            copy(Path(own.key), renewed.key)
            assert await client.health() == {"status": "ok"}


def test_a_client_key_that_is_open_to_others_is_a_warning(authority: Authority) -> None:
    own = authority.issue("worker@example.org")
    access = Access(client_cert=own.cert, client_key=own.key)
    assert access.warnings == []
    Path(own.key).chmod(0o644)
    (warning,) = access.warnings
    assert warning.startswith(f"The client key in {own.key} is open to every user")


def test_a_url_given_in_code_takes_no_certificate_from_the_environment(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GYOZA_CLIENT_CERT", "/nowhere")
    with GyozaClient("https://localhost") as client:
        assert client.connection.tls is not None


def test_without_tls_no_certificate_would_be_believed() -> None:
    with GyozaClient("http://localhost") as client:
        context = client.connection.options()["verify"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.get_ca_certs() == []
