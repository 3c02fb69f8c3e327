import socket
from contextlib import closing
from typing import Any

import pytest

from gyoza.cli import completion
from gyoza.cli.completion import PATIENCE_S
from gyoza.cli.main import main
from tests.client.scripted import Answer, scripted_server

ANSWERS = {
    "run id": Answer({"data": [{"id": "ab"}, {"id": "a1"}, {"id": "b"}]}),
    "worker id": Answer([{"id": "ab"}, {"id": "a1"}, {"id": "b"}]),
    "definition name": Answer([{"id": "ab"}, {"id": "a1"}, {"id": "a1"}, {"id": "b"}]),
    "key id": Answer([{"id": "ab"}, {"id": "a1"}, {"id": "b"}]),
}
ARGUMENTS = {
    "run id": "runs show",
    "worker id": "workers show",
    "definition name": "definitions show",
    "key id": "keys revoke",
}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who waits for as long as a busy machine may take."""
    monkeypatch.setattr(completion, "PATIENCE_S", 60.0)


@pytest.fixture
def offered(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Presses the Tab key behind a command line, as bash does."""

    def press(line: str) -> list[str]:
        with monkeypatch.context() as shell:
            shell.setenv("_GYOZA_COMPLETE", "complete_bash")
            shell.setenv("COMP_WORDS", f"gyoza {line}")
            shell.setenv("COMP_CWORD", str(len(line.split(" "))))
            with pytest.raises(SystemExit):
                main([])
        shown = capsys.readouterr()
        assert shown.err == ""
        return shown.out.split()

    return press


@pytest.mark.parametrize("what", ANSWERS)
def test_ids_that_begin_so_are_offered_once_each(
    what: str, monkeypatch: pytest.MonkeyPatch, offered: Any
) -> None:
    with scripted_server(ANSWERS[what]) as server:
        monkeypatch.setenv("GYOZA_SERVER_URL", server.url)
        assert offered(f"{ARGUMENTS[what]} a") == ["a1", "ab"]


def test_the_server_on_the_line_is_asked(no_server: str, offered: Any) -> None:
    with scripted_server(ANSWERS["run id"]) as server:
        assert offered(f"runs cancel --server-url {server.url} ab") == ["ab"]


@pytest.mark.parametrize("what", ANSWERS)
def test_without_a_server_nothing_is_offered_and_nothing_said(
    what: str, no_server: str, offered: Any
) -> None:
    assert offered(f"{ARGUMENTS[what]} a") == []


@pytest.mark.parametrize("answer", [Answer({"detail": "Wrong key."}, 401), Answer("no list")])
def test_of_what_is_no_list_nothing_is_offered(
    monkeypatch: pytest.MonkeyPatch, offered: Any, answer: Answer
) -> None:
    with scripted_server(answer) as server:
        monkeypatch.setenv("GYOZA_SERVER_URL", server.url)
        assert offered("runs show a") == []
        assert len(server.requests) == 1  # a shell is not kept waiting by retries


def test_a_server_that_never_answers_is_given_up_soon(
    monkeypatch: pytest.MonkeyPatch, offered: Any
) -> None:
    assert PATIENCE_S < 2
    monkeypatch.setattr(completion, "PATIENCE_S", 0.1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        monkeypatch.setenv("GYOZA_SERVER_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert offered("runs show a") == []


def test_the_key_is_not_read_from_the_terminal(
    monkeypatch: pytest.MonkeyPatch, offered: Any
) -> None:
    with scripted_server(ANSWERS["run id"]) as server:
        monkeypatch.setenv("GYOZA_SERVER_URL", server.url)
        assert offered("runs show --api-key-file - a") == []
        assert server.requests == []
