"""What a person is told who makes a mistake: one sentence, the right exit code, no traceback."""

import errno
from importlib import import_module
from pathlib import Path

import pytest

from gyoza.cli.errors import KNOWN, CliError, ExitCode, explain
from gyoza.cli.session import Server
from gyoza.client import ServerUnreachable
from gyoza.worker.errors import EngineUnavailable, SettingsError
from tests.client.scripted import Answer, scripted_server

from .conftest import Gyoza

CLIENT_COMMANDS = [
    ["runs", "list"],
    ["runs", "show", "r1"],
    ["runs", "logs", "r1"],
    ["runs", "logs", "-f", "r1"],
    ["runs", "cancel", "r1"],
    ["runs", "retry", "r1"],
    ["run", "image"],
    ["run", "-d", "op"],
    ["definitions", "list"],
    ["definitions", "show", "op"],
    ["workers", "list"],
    ["workers", "show", "w1"],
    ["workers", "drain", "w1"],
    ["workers", "resume", "w1"],
]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bogus"], "No such option: --bogus; see `gyoza --help`."),
        (["runs", "list", "--bogus"], "No such option: --bogus; see `gyoza runs list --help`."),
        (["bogus"], "No such command 'bogus'; see `gyoza --help`."),
        (["runs", "show"], "Missing argument 'RUN_ID'; see `gyoza runs show --help`."),
    ],
)
def test_wrong_usage_is_told_with_where_to_read_on(
    gyoza: Gyoza, arguments: list[str], sentence: str
) -> None:
    result = gyoza(*arguments)
    assert (result.code, result.sentence) == (ExitCode.USAGE, sentence)


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "list", "--limit", "many"],
        ["runs", "list", "--limit", "0"],
        ["runs", "list", "--state", "DONE"],
        ["run", "image", "--cpu", "none"],
        ["run", "image", "--timeout", "soon"],
        ["worker", "start", "--pull-policy", "sometimes"],
        ["server", "start", "--port", "http"],
    ],
)
def test_a_value_of_the_wrong_kind_names_its_option(gyoza: Gyoza, arguments: list[str]) -> None:
    result = gyoza(*arguments)
    assert result.code == ExitCode.USAGE
    assert arguments[2] in result.sentence


def test_a_group_without_a_command_shows_its_help(gyoza: Gyoza) -> None:
    result = gyoza("runs")
    assert result.code == ExitCode.USAGE
    assert "cancel" in result.out
    assert result.err == ""


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_no_server_is_told_by_every_command(
    gyoza: Gyoza, no_server: str, command: list[str]
) -> None:
    result = gyoza(*command)
    assert result.code == ExitCode.SERVER
    assert result.sentence.startswith(f"The server at {no_server} does not answer (")
    assert "`gyoza server start`" in result.sentence


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_a_server_that_is_something_else_is_told_by_every_command(
    gyoza: Gyoza, no_server: str, command: list[str]
) -> None:
    with scripted_server(Answer(b"<h1>hello</h1>", 404)) as server:
        result = gyoza(*command, "--server-url", server.url)
    assert result.code == ExitCode.SERVER
    assert "not in the words of a gyoza server" in result.sentence
    assert "check GYOZA_SERVER_URL" in result.sentence


@pytest.mark.parametrize("body", [b"<h1>hello</h1>", 7])
@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_a_success_of_something_else_is_told_as_well(
    gyoza: Gyoza, no_server: str, command: list[str], body: object
) -> None:
    with scripted_server(Answer(body)) as server:
        result = gyoza(*command, "--server-url", server.url)
    assert result.code == ExitCode.SERVER
    assert "did not answer as a gyoza server does" in result.sentence


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (["runs", "show", "r1"], {"state": "RUNNING"}),
        (["runs", "list"], {"data": [{"state": "RUNNING"}]}),
        (["run", "image"], {"state": "PENDING"}),
    ],
)
def test_a_run_that_lacks_its_id_is_no_gyoza_servers(
    gyoza: Gyoza, command: list[str], answer: dict[str, object]
) -> None:
    with scripted_server(Answer(answer)) as server:
        result = gyoza(*command, "--server-url", server.url)
    assert result.code == ExitCode.SERVER
    assert "did not answer as a gyoza server does" in result.sentence


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, ExitCode.SERVER), (403, ExitCode.SERVER), (500, ExitCode.SERVER)]
    + [(status, ExitCode.USAGE) for status in (400, 404, 409, 413, 422)],
)
def test_the_servers_sentence_is_passed_on_with_a_code_by_who_is_at_fault(
    gyoza: Gyoza, no_server: str, status: int, code: ExitCode
) -> None:
    with scripted_server(Answer({"detail": "So it is."}, status)) as server:
        result = gyoza("runs", "show", "r1", "--server-url", server.url)
    assert (result.code, result.sentence) == (code, "So it is.")


@pytest.mark.parametrize("url", ["localhost:5555", "ftp://localhost", "http://"])
def test_an_address_that_is_no_url_is_told(
    gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    by_flag = gyoza("runs", "list", "--server-url", url)
    monkeypatch.setenv("GYOZA_SERVER_URL", url)
    by_variable = gyoza("runs", "list")
    assert by_flag == by_variable
    assert by_flag.code == ExitCode.USAGE
    assert "is not the URL of a server" in by_flag.sentence


def test_a_key_file_that_is_not_there_is_told(
    gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GYOZA_API_KEY_FILE", str(tmp_path / "nowhere"))
    result = gyoza("runs", "list")
    assert result.code == ExitCode.USAGE
    assert str(tmp_path / "nowhere") in result.sentence


@pytest.mark.parametrize("bad", ["../x", "..", "a/b", "", "a b", "x" * 64, "-x"])
@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["runs", "show"], "run id"),
        (["runs", "logs"], "run id"),
        (["runs", "cancel"], "run id"),
        (["runs", "retry"], "run id"),
        (["workers", "show"], "worker id"),
        (["workers", "drain"], "worker id"),
        (["definitions", "show"], "definition name"),
    ],
)
def test_an_id_that_could_be_a_path_is_refused_before_anything_is_sent(
    gyoza: Gyoza, no_server: str, command: list[str], what: str, bad: str
) -> None:
    result = gyoza(*command, "--", bad)
    assert result.code == ExitCode.USAGE
    assert f"is not a valid {what}: use 1 to 63 letters" in result.sentence


def test_a_definitions_name_is_checked_as_well_where_it_is_an_option(gyoza: Gyoza) -> None:
    result = gyoza("run", "-d", "../x@1")
    assert (result.code, "not a valid definition name" in result.sentence) == (2, True)


@pytest.mark.parametrize("name", KNOWN)
def test_every_error_known_by_name_exists(name: str) -> None:
    module, _, cls = name.rpartition(".")
    assert issubclass(getattr(import_module(module), cls), Exception)


def test_the_most_specific_class_decides_the_code() -> None:
    assert explain(SettingsError("a")) == ("a", ExitCode.USAGE)
    assert explain(EngineUnavailable("b")) == ("b", ExitCode.MACHINE)


def test_a_group_of_known_errors_is_told_as_its_first_and_any_other_is_a_bug() -> None:
    known = ExceptionGroup("", [ExceptionGroup("", [ServerUnreachable("a")]), CliError("b")])
    assert explain(known) == ("a", ExitCode.SERVER)
    assert explain(ExceptionGroup("", [CliError("a"), ZeroDivisionError()])) is None
    assert explain(ZeroDivisionError()) is None


def test_an_interrupt_within_a_group_is_an_interrupt() -> None:
    group = BaseExceptionGroup("", [KeyboardInterrupt()])
    assert explain(group) == ("Interrupted.", ExitCode.INTERRUPTED)


def test_missing_packages_of_the_server_are_told_with_what_to_install() -> None:
    sentence, code = explain(ModuleNotFoundError("no", name="fastapi")) or ("", 0)
    assert "pip install 'gyoza-worker[server]'" in sentence
    assert code == ExitCode.MACHINE
    assert explain(ModuleNotFoundError("no", name="gyoza.typo")) is None


def test_a_port_in_use_is_told() -> None:
    sentence, code = explain(OSError(errno.EADDRINUSE, "Address in use")) or ("", 0)
    assert "--port" in sentence
    assert code == ExitCode.MACHINE


def test_ctrl_c_ends_a_command_without_a_word(
    gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_server: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "connect", interrupted)
    result = gyoza("runs", "list")
    assert (result.code, result.out) == (ExitCode.INTERRUPTED, "")
    assert "Traceback" not in result.err


def test_a_bug_is_not_hidden(gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(_server: Server) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Server, "connect", bug)
    with pytest.raises(ZeroDivisionError):
        gyoza("runs", "list")
