import ssl
from pathlib import Path

import pytest

from gyoza.client import (
    Access,
    AsyncGyozaClient,
    ClientError,
    CredentialsError,
    GyozaClient,
    InvalidServerUrl,
    ServerUnreachable,
    gyoza_client,
)
from gyoza.client.access import DEFAULT_URL
from gyoza.client.connection import Connection
from gyoza.client.credentials import find_api_key, stored_api_key, stored_key_path
from tests.support.authority import Authority

from .scripted import DROP, Answer, scripted_server


@pytest.fixture
def stored(data_dir: Path) -> str:
    data_dir.mkdir(parents=True)
    stored_key_path().write_text("stored\n")
    return "stored"


def test_without_a_word_the_client_goes_to_port_5555_of_this_machine_without_a_key() -> None:
    assert Connection.resolve(Access()) == Connection(DEFAULT_URL)


def test_the_environment_names_the_server_and_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", "https://gyoza.example/base/")
    monkeypatch.setenv("GYOZA_API_KEY", " secret ")
    connection = Connection.resolve(Access())
    assert (connection.url, connection.api_key) == ("https://gyoza.example/base", "secret")


def test_the_key_can_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("GYOZA_API_KEY_FILE", str(tmp_path / "key"))
    assert Connection.resolve(Access()).api_key == "from-file"
    monkeypatch.setenv("GYOZA_API_KEY", "from-variable")
    assert Connection.resolve(Access()).api_key == "from-variable"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_key_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("GYOZA_API_KEY_FILE", str(file))
    with GyozaClient(None) as client, pytest.raises(CredentialsError, match=str(file)):
        client.health()


@pytest.mark.parametrize("key", ["käy", "two\nlines"])
def test_a_key_that_http_cannot_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(CredentialsError, match="printable ASCII") as caught:
        Connection.resolve(Access(url="http://localhost", api_key=key))
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.0.0.1:1", "https://[::1]:1"])
def test_the_stored_key_goes_to_servers_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, stored: str, url: str
) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", url)
    assert Connection.resolve(Access()).api_key == stored
    assert find_api_key() == stored


@pytest.mark.parametrize("url", ["http://192.0.2.1:5555", "https://localhost.example"])
def test_the_stored_key_goes_to_no_other_machine(
    monkeypatch: pytest.MonkeyPatch, stored: str, url: str
) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", url)
    assert Connection.resolve(Access()).api_key is None


def test_a_server_given_in_code_gets_no_key_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    monkeypatch.setenv("GYOZA_API_KEY", "secret")
    assert GyozaClient("http://localhost:5555").connection.api_key is None


def test_an_empty_stored_key_is_none(stored: str) -> None:
    stored_key_path().write_text("\n")
    assert stored_api_key() is None


@pytest.mark.parametrize(
    "url", ["localhost:5555", "ftp://host", "http://", "http://[::1", "http://h:x"]
)
def test_an_address_that_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(InvalidServerUrl, match="GYOZA_SERVER_URL"):
        Connection.resolve(Access(url=url))


def test_a_context_for_tls_is_handed_to_httpx() -> None:
    context = ssl.create_default_context()
    for url in ("https://localhost", "HTTPS://localhost"):
        with GyozaClient(url, verify=context) as client:
            assert client.connection.options()["verify"] is context


async def test_a_client_that_was_never_used_closes_without_reading_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", "not a url")
    with GyozaClient(None):
        pass
    async with AsyncGyozaClient(None):
        pass


def test_the_ready_made_client_reads_the_environment_at_its_first_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gyoza_client, "_access", Access())
    monkeypatch.setenv("GYOZA_SERVER_URL", "not a url")
    with pytest.raises(ClientError):
        gyoza_client.health()


def test_no_proxy_stands_between_this_machine_and_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with (
        scripted_server(Answer(body={"status": "ok"})) as server,
        GyozaClient(server.url) as client,
    ):
        assert client.health() == {"status": "ok"}


@pytest.mark.parametrize("speaks_tls", [True, False])
def test_a_server_that_hangs_up_on_plain_http_may_speak_tls(
    tmp_path: Path, impatient: None, speaks_tls: bool
) -> None:
    tls = Authority(tmp_path / "authority").server("127.0.0.1") if speaks_tls else None
    with scripted_server(DROP, tls=tls) as server:
        url = server.url.replace("https:", "http:")
        with GyozaClient(url) as client, pytest.raises(ServerUnreachable, match="write https://"):
            client.health()
