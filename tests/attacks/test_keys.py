"""Attackers who are after the API key, or a password in a URL: no output and no detour shows it."""

import logging
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import typer.main

from gyoza.cli.errors import ExitCode
from gyoza.cli.main import app, main
from gyoza.client import (
    Access,
    ApiError,
    AsyncGyozaClient,
    ClientError,
    CredentialsError,
    GyozaClient,
    InvalidServerUrl,
)
from gyoza.client.connection import Connection
from gyoza.worker.containers.labels import server_name
from gyoza.worker.settings import WorkerSettings
from tests.client.conftest import PROXIES
from tests.client.scripted import DROP, Answer, Scripted, scripted_server

KEY = "k3y-nobody-may-see"
PASSWORD = "p4ssw0rd"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GYOZA_SERVER_URL", "GYOZA_API_KEY", "GYOZA_API_KEY_FILE", *PROXIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def none(_low: float, _high: float) -> float:
        return 0.0

    monkeypatch.setattr("random.uniform", none)


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """What a command sets up for its log is undone."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers[:] = []
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server(Answer()) as server:
        yield server


async def both(access: Access, method: str, *args: Any, **kwargs: Any) -> list[BaseException]:
    """Call a method by both clients and return what they raise."""
    raised: list[BaseException] = []
    with GyozaClient(access) as client:
        try:
            await trio.to_thread.run_sync(lambda: getattr(client, method)(*args, **kwargs))
        except (ApiError, ClientError) as error:
            raised.append(error)
    async with AsyncGyozaClient(access) as client:
        try:
            await getattr(client, method)(*args, **kwargs)
        except (ApiError, ClientError) as error:
            raised.append(error)
    return raised


def told_by(error: BaseException) -> str:
    """Return all that a careless logger, or a tool that shows local variables, would tell."""
    said = "".join(traceback.format_exception(error))
    cause: BaseException | None = error
    while cause is not None:
        said += f"{cause!r} {cause.args} {vars(cause)}"
        with suppress(RuntimeError, AttributeError):
            request: Any = getattr(cause, "request")  # noqa: B009  raises RuntimeError if unset
            said += f"{request!r} {list(request.headers.items())} {request.url}"
        cause = cause.__cause__ or cause.__context__
    return said


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_server_that_sends_its_clients_elsewhere_gets_no_key_there(
    server: Scripted, status: int
) -> None:
    with scripted_server(Answer()) as elsewhere:
        server.answers[:] = [Answer(status=status, headers={"Location": f"{elsewhere.url}/x"})]
        access = Access(url=server.url, api_key=KEY)
        for method, *args in (["health"], ["cancel_run", "r"], ["claim", "w"]):
            assert len(await both(access, method, *args)) == 2
    assert elsewhere.requests == []


def test_a_server_that_sends_the_log_elsewhere_gets_no_key_there(server: Scripted) -> None:
    with scripted_server(Answer()) as elsewhere:
        server.answers[:] = [Answer(status=307, headers={"Location": elsewhere.url})]
        with GyozaClient(server.url, KEY) as client, pytest.raises(ClientError):
            list(client.follow_logs("r", patience_s=0))
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"detail": "The API key is wrong."}, 401),
        Answer(b"<h1>", 502),
        Answer(b"<h1>"),
        DROP,
        Answer(status=302, headers={"Location": "http://elsewhere.test"}),
    ],
    ids=["refused", "foreign", "nonsense", "dropped", "redirected"],
)
async def test_errors_show_neither_key_nor_password(server: Scripted, answer: Answer) -> None:
    server.answers[:] = [answer]
    url = server.url.replace("//", f"//user:{PASSWORD}@")
    raised = await both(Access(url=url, api_key=KEY), "get_run", "r")
    assert len(raised) == 2
    for error in raised:
        assert KEY not in (said := told_by(error))
        assert PASSWORD not in said
    assert server.requests[0].headers["X-API-Key"] == KEY


async def test_a_password_in_the_url_reaches_the_server_and_nobody_else(server: Scripted) -> None:
    url = server.url.replace("//", f"//user:{PASSWORD}@")
    assert await both(Access(url=url, api_key=KEY), "health") == []
    assert {request.headers["Authorization"] for request in server.requests} == {
        "Basic dXNlcjpwNHNzdzByZA=="
    }
    connection = Connection.resolve(Access(url=url, api_key=KEY))
    assert connection.url == server.url
    assert PASSWORD not in f"{connection!r} {connection}"
    assert PASSWORD not in server_name(url)


@pytest.mark.parametrize(
    "url",
    [
        f"htp://user:{PASSWORD}@host",
        f"user:{PASSWORD}@host:5555",
        f"http://user:{PASSWORD}@[::1",
        f"http://user:{PASSWORD}@host:port/@x",
    ],
)
def test_an_address_that_is_none_is_told_without_its_password(url: str) -> None:
    with pytest.raises(InvalidServerUrl) as caught:
        Connection.resolve(Access(url=url))
    assert PASSWORD not in told_by(caught.value)
    assert "***@" in str(caught.value)


def test_no_representation_shows_the_key(server: Scripted) -> None:
    access = Access(url=server.url, api_key=KEY)
    with GyozaClient(access) as client:
        client.health()
        things = [access, client, client.connection, client.connection.options()]
        things += [WorkerSettings(server_url=server.url, api_key=KEY)]
        things += [client.connection.request, client._http.headers]  # pyright: ignore[reportPrivateUsage]
        for thing in things:
            assert KEY not in f"{thing!r} {thing}"


async def test_the_most_talkative_log_shows_no_key(
    server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url.replace("//", f"//user:{PASSWORD}@")
    with caplog.at_level(logging.DEBUG):
        for name in ("httpx", "httpcore", "h11", "urllib3"):
            caplog.set_level(logging.DEBUG, name)
        assert await both(Access(url=url, api_key=KEY), "health") == []
    assert "HTTP/1.1 200 OK" in caplog.text  # they do talk
    assert KEY not in caplog.text
    assert PASSWORD not in caplog.text
    assert "dXNlcjpwNHNzdzByZA==" not in caplog.text


def test_no_command_takes_a_key_where_ps_would_show_it() -> None:
    def options(command: Any) -> Iterator[str]:
        yield from (option for parameter in command.params for option in parameter.opts)
        for sub in getattr(command, "commands", {}).values():
            yield from options(sub)

    named = {option for option in options(typer.main.get_command(app)) if "key" in option}
    assert named == {
        "--api-key-file",
        "--client-key",
        "--idempotency-key",
        "--max-connections-per-key",
        "--tls-keyfile",
        "key_id",
    }


async def test_the_command_line_of_a_process_that_has_the_key_does_not_show_it(
    server: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(KEY)
    program = "from gyoza.cli.main import main; main(); print(open('/proc/self/cmdline').read())"
    for key_file, stdin in ((str(tmp_path / "key"), b""), ("-", KEY.encode())):
        command = ["workers", "list", "--server-url", server.url, "--api-key-file", key_file]
        server.answers[:] = [Answer([])]
        ran = await trio.run_process(
            [sys.executable, "-c", program, *command],
            stdin=stdin,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
        )
        assert b"--api-key-file" in ran.stdout
        assert KEY.encode() not in ran.stdout
        assert server.requests.pop().headers["X-API-Key"] == KEY


@pytest.mark.parametrize("content", [f"{KEY}\nsecond", f"{KEY}é", f"{KEY}\x00", KEY * 300])
def test_a_key_file_that_is_odd_is_told_without_what_it_holds(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(CredentialsError) as caught:
        Connection.resolve(Access(api_key_file=str(tmp_path / "key")))
    assert KEY not in told_by(caught.value)


def test_a_key_file_of_another_kind_is_told_without_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(pickle.dumps(KEY) + b"\xff")
    with pytest.raises(CredentialsError, match="not hold text") as caught:
        Connection.resolve(Access(api_key_file=str(tmp_path / "key")))
    assert KEY not in told_by(caught.value)


def test_a_file_without_end_as_key_file_ends_soon() -> None:
    with pytest.raises(CredentialsError):
        Connection.resolve(Access(api_key_file="/dev/zero"))


def test_doctor_warns_of_a_key_that_others_can_read_and_does_not_show_it(
    server: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o644)
    server.answers[:] = [Answer({"status": "ok"}), Answer([])]
    main(["doctor", "--json", "--server-url", server.url, "--api-key-file", str(tmp_path / "key")])
    said = capsys.readouterr().out
    assert re.search(r"API key in \S+/key is open to every user of this machine; `chmod", said)
    assert KEY not in said


def test_the_users_netrc_does_not_add_another_password(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login user password {PASSWORD}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    for key in (KEY, None):
        with GyozaClient(server.url, key) as client:
            client.health()
    assert [request.headers["Authorization"] for request in server.requests] == [None, None]


async def test_a_key_that_was_changed_is_read_again_when_the_old_one_is_refused(
    server: Scripted, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    refusal = Answer({"detail": "The API key is wrong."}, 401)
    access = Access(url=server.url, api_key_file=str(file))

    def keys() -> list[str]:
        used = [request.headers["X-API-Key"] for request in server.requests]
        server.requests.clear()
        return used

    await trio.Path(file).write_text("old")
    async with AsyncGyozaClient(access) as client:
        server.answers[:] = [refusal]
        with pytest.raises(ApiError):
            await client.heartbeat("w", {})
        assert keys() == ["old"]  # it is no other by now
        await trio.Path(file).write_text("")
        with pytest.raises(ApiError):
            await client.heartbeat("w", {})
        assert keys() == ["old"]  # it is being written
        await trio.Path(file).write_text("new")
        server.answers[:] = [refusal, Answer({"lease_s": 60})]
        assert await client.heartbeat("w", {}) == {"lease_s": 60}
        assert keys() == ["old", "new"]
        assert await client.heartbeat("w", {}) == {"lease_s": 60}
        assert keys() == ["new"]


def test_a_blocking_client_reads_a_changed_key_as_well(server: Scripted, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    with GyozaClient(Access(url=server.url, api_key_file=str(file))) as client:
        client.health()
        file.write_text("new")
        server.answers[:] = [Answer(status=401), Answer([])]
        assert client.list_workers() == []
    assert [request.headers["X-API-Key"] for request in server.requests] == ["old", "old", "new"]


def test_the_key_may_be_a_credential_of_systemd(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Connection.resolve(Access()).api_key is None
    (tmp_path / "gyoza_api_key").write_text("by-systemd\n")
    assert Connection.resolve(Access()).api_key == "by-systemd"


def test_keys_are_looked_for_in_the_documented_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("flag", "variable", "gyoza_api_key", "data/gyoza/api_key"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    variables = {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "GYOZA_API_KEY_FILE": str(tmp_path / "variable"),
        "GYOZA_API_KEY": "key",
    }
    assert Connection.resolve(Access()).api_key == "data/gyoza/api_key"
    for (name, value), key in zip(
        variables.items(), ["gyoza_api_key", "variable", "key"], strict=True
    ):
        monkeypatch.setenv(name, value)
        assert Connection.resolve(Access()).api_key == key
    assert Connection.resolve(Access(api_key_file=str(tmp_path / "flag"))).api_key == "flag"


@pytest.mark.parametrize("flag", ["--api-key-file", "--ca-file", "--client-cert"])
def test_a_worker_whose_files_are_not_there_says_so_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    command = ["worker", "start", "--server-url", "https://localhost", flag, "/nowhere.pem"]
    assert main([*command, "--work-dir", str(tmp_path / "work")]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert f"/nowhere.pem {'cannot' if 'key' in flag else 'with'}" in said
    assert flag in said
    assert "Traceback" not in said


def test_a_worker_warns_of_a_key_that_others_can_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o644)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    flags = ["--api-key-file", str(tmp_path / "key"), "--work-dir", str(tmp_path / "work")]
    assert main(["worker", "start", *flags]) == ExitCode.MACHINE
    said = capsys.readouterr().err
    assert f"The API key in {tmp_path}/key is open to every user" in said
    assert KEY not in said
