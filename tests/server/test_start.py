"""Starting and stopping: settings, key, addresses, databases, certificates, signals."""

import io
import os
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trio
import trustme

import gyoza.server
from gyoza.client.credentials import find_api_key, stored_key_path
from gyoza.server import ServerSettings, StartError, serve
from gyoza.server.auth import ensure_api_key
from gyoza.server.errors import AddressError, ApiKeyError, DatabaseError, SettingsError, TlsError
from gyoza.server.serve import serve as serve_in_nursery

from .api import KEY, Api, serving, settings_in


def test_arguments_win_over_the_environment_and_this_over_defaults() -> None:
    environ = {
        "GYOZA_HOST": "0.0.0.0",
        "GYOZA_PORT": "1234",
        "GYOZA_LEASE_S": "2.5",
        "GYOZA_DATABASE_URL": "sqlite:////x/y.db",
        "GYOZA_LOG_LEVEL": " ",
    }
    settings = ServerSettings.from_env(environ, port=0, host=None)
    assert (settings.host, settings.port, settings.lease_s) == ("0.0.0.0", 0, 2.5)
    assert settings.database_path == Path("/x/y.db")
    assert settings.log_level == "info"
    defaults = ServerSettings.from_env({})
    assert (defaults.host, defaults.port, defaults.lease_s) == ("127.0.0.1", 5555, 60.0)
    assert defaults.database_path == stored_key_path().parent / "gyoza.sqlite3"


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"GYOZA_PORT": "x"}, "GYOZA_PORT must be a number"),
        ({"GYOZA_PORT": "65536"}, "65536 is not a TCP port"),
        ({"GYOZA_LEASE_S": "0"}, "GYOZA_LEASE_S"),
        ({"GYOZA_LEASE_S": "nan"}, "GYOZA_LEASE_S"),
        ({"GYOZA_LOG_LEVEL": "loud"}, "log level"),
        ({"GYOZA_TLS_CERTFILE": "x"}, "both"),
    ],
)
def test_a_setting_that_cannot_be_is_named(environ: dict[str, str], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        ServerSettings.from_env(environ)


@pytest.mark.parametrize(
    "url", ["postgresql://x/y", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x", "x.db"]
)
def test_only_a_sqlite_file_is_a_database(url: str) -> None:
    with pytest.raises(SettingsError, match="must name a SQLite file"):
        _ = ServerSettings(database_url=url).database_path


def test_a_server_without_a_key_makes_one_that_only_its_user_can_read() -> None:
    made = ensure_api_key(ServerSettings())
    path = stored_key_path()
    assert str(path) in made.origin
    assert path.read_text().strip() == made.value
    assert len(made.value) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == [path.name]
    assert find_api_key() == made.value  # as the client finds it
    assert ensure_api_key(ServerSettings()).value == made.value


def test_a_key_stored_in_the_meantime_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    stored_key_path().parent.mkdir(parents=True)
    stored_key_path().write_text("theirs\n")
    monkeypatch.setattr("gyoza.server.auth.stored_api_key", lambda: None)
    assert ensure_api_key(ServerSettings()).value == "theirs"


def test_a_key_from_the_environment_or_a_file_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("GYOZA_API_KEY_FILE", str(tmp_path / "key"))
    assert ensure_api_key(ServerSettings()).value == "from-file"
    monkeypatch.setenv("GYOZA_API_KEY", "from-env")
    assert ensure_api_key(ServerSettings()).value == "from-env"
    assert ensure_api_key(ServerSettings(api_key="given")).value == "given"
    assert not stored_key_path().exists()


def test_a_key_that_cannot_be_read_or_stored_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    for name, word in (("missing", "cannot be read"), ("empty", "is empty")):
        monkeypatch.setenv("GYOZA_API_KEY_FILE", str(tmp_path / name))
        with pytest.raises(ApiKeyError, match=word):
            ensure_api_key(ServerSettings())
    monkeypatch.delenv("GYOZA_API_KEY_FILE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "empty"))  # a file, not a directory
    with pytest.raises(ApiKeyError, match="cannot be stored"):
        ensure_api_key(ServerSettings())


async def refused(settings: ServerSettings) -> StartError:
    """Return why a server does not start."""
    with trio.fail_after(200), pytest.raises(StartError) as caught:
        await serve(settings)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_a_busy_port_is_told_in_one_sentence(api: Api, tmp_path: Path) -> None:
    port = int(api.url.rpartition(":")[2])
    error = await refused(settings_in(tmp_path / "other", port=port))
    assert isinstance(error, AddressError)
    assert f"127.0.0.1:{port}" in str(error)


async def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    for host in ("192.0.2.1", "host.invalid", "a" * 70):
        assert isinstance(await refused(settings_in(tmp_path, host=host)), AddressError)


async def test_a_database_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, but long enough to be read as one" * 50)
    (tmp_path / "dir").mkdir()
    newer = tmp_path / "newer"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    for name in ("file", "file/below", "dir", "newer"):
        settings = settings_in(tmp_path, database_url=f"sqlite:///{tmp_path / name}")
        error = await refused(settings)
        assert isinstance(error, DatabaseError)
        assert str(tmp_path) in str(error)


async def test_a_sqlite_that_is_too_old_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    error = await refused(settings_in(tmp_path))
    assert isinstance(error, DatabaseError)
    assert "SQLite 3.35" in str(error)


async def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("no certificate")
    for name in ("bad", "missing"):
        path = str(tmp_path / name)
        error = await refused(settings_in(tmp_path, tls_certfile=path, tls_keyfile=path))
        assert isinstance(error, TlsError)
        assert path in str(error)


async def test_the_server_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    pem = str(tmp_path / "cert.pem")
    settings = settings_in(tmp_path, host="localhost", tls_certfile=pem, tls_keyfile=pem)
    async with serving(settings, verify=context) as api:
        assert api.url.startswith("https://localhost:")
        assert await api.submit()


@pytest.mark.parametrize(
    ("host", "base"), [("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
async def test_the_base_url_can_be_reached(tmp_path: Path, host: str, base: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with serving(settings_in(tmp_path, host=host)) as api:
        assert api.url.startswith(base)
        assert (await api.get("/health"))["status"] == "ok"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


async def test_a_failing_service_ends_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules[serve.__module__], "run_leases", fail)
    with trio.fail_after(200), pytest.raises(BaseExceptionGroup) as caught:
        await serve(settings_in(tmp_path))
    assert caught.group_contains(ZeroDivisionError)


def test_reloading_and_several_processes_are_refused() -> None:
    with pytest.raises(SettingsError, match="reload"):
        gyoza.server.start(reload=True)
    with pytest.raises(SettingsError, match="one process"):
        gyoza.server.start(workers=2)


def test_start_raises_one_sentence_and_no_group(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressError) as caught:
        gyoza.server.start(port=taken.getsockname()[1], workers=1)
    assert caught.value.__suppress_context__


def test_start_does_not_hide_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gyoza.server.main.serve", fail)
    with pytest.raises(BaseExceptionGroup):
        gyoza.server.start(port=0)


@contextmanager
def started(tmp_path: Path) -> Generator[subprocess.Popen[str], None, None]:
    """Run `start()` in a process of its own."""
    environ = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}
    command = [sys.executable, "-c", "import gyoza.server; gyoza.server.start(port=0)"]
    with subprocess.Popen(
        command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Told(io.StringIO):
    """Standard output that says when something is on it."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = threading.Event()

    def flush(self) -> None:
        self.flushed.set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_start_returns_at_a_signal(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    told = Told()
    monkeypatch.setattr(sys, "stdout", told)

    def end() -> None:
        assert told.flushed.wait(60)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=end)
    thread.start()
    gyoza.server.start(port=0, log_level="warning")
    thread.join()
    assert "listens on http://127.0.0.1:" in told.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_start_says_where_things_are_and_ends_at_a_signal(tmp_path: Path, number: int) -> None:
    with started(tmp_path) as process:
        assert process.stdout is not None
        listens, key, database = (process.stdout.readline() for _ in range(3))
        url = listens.split()[4]
        assert httpx.get(f"{url}/health").status_code == 200
        path = tmp_path / "data" / "gyoza" / "api_key"
        assert str(path) in key
        assert str(path.with_name("gyoza.sqlite3")) in database
        headers = {"X-API-Key": path.read_text().strip()}
        assert httpx.get(f"{url}/runs", headers=headers).status_code == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in errors


def test_another_key_in_its_file_is_taken_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"old": tmp_path / "key", "new": tmp_path / "key.new"}
    for name, path in keys.items():
        path.write_text(name)
    monkeypatch.setenv("GYOZA_API_KEY_FILE", str(keys["old"]))
    with started(tmp_path) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[4]

        def status(key: str) -> int:
            return httpx.get(f"{url}/runs", headers={"X-API-Key": key}).status_code

        assert (status("old"), status("new")) == (200, 401)
        keys["new"].replace(keys["old"])
        until = time.monotonic() + 20
        while status("new") != 200:
            assert time.monotonic() < until
        assert status("old") == 401


async def test_the_settings_key_is_the_one_required(tmp_path: Path) -> None:
    async with serving(replace(settings_in(tmp_path), api_key=KEY)) as api:
        assert await api.get("/runs")


async def test_a_second_server_on_the_same_database_does_not_start(tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite3"
    async with serving(settings_in(tmp_path)):
        link.symlink_to(tmp_path / "server.sqlite3")
        other = settings_in(tmp_path, database_url=f"sqlite:///{link}")
        for settings in (settings_in(tmp_path), other):
            with pytest.RaisesGroup(
                pytest.RaisesExc(DatabaseError, match=f"process {os.getpid()}"),
                flatten_subgroups=True,
            ):
                async with serving(settings):
                    pass
    async with serving(settings_in(tmp_path)) as api:
        assert (await api.get("/health"))["status"] == "ok"


async def test_a_server_warns_of_a_short_key_and_of_files_that_others_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def warnings_with(settings: ServerSettings) -> list[str]:
        caplog.clear()
        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_in_nursery, settings)
                nursery.cancel_scope.cancel()
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    key_file, database = tmp_path / "key", tmp_path / "db"
    key_file.write_text("k" * 20)
    key_file.chmod(0o600)
    safe = ServerSettings(port=0, database_url=f"sqlite:///{database}", api_key_file=str(key_file))
    assert await warnings_with(safe) == []
    for file in (key_file, database):
        file.chmod(0o644)
    key_file.write_text("k" * 19)
    short, open_key, open_database = await warnings_with(safe)
    assert "fewer than 20 characters" in short
    assert f"The API key in {key_file} is open" in open_key
    assert f"in {database} is open" in open_database
