"""`gyoza server start`, `gyoza worker start` and `gyoza up` as processes, ended by signals."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import pytest

from gyoza.cli.errors import ExitCode
from gyoza.cli.main import main
from gyoza.client import GyozaClient
from gyoza.client.credentials import stored_key_path

from .conftest import Gyoza, Watched
from .live import KEY, live_server, played_worker

COMMAND = [sys.executable, "-m", "gyoza.cli.main"]


@contextmanager
def program(*arguments: str) -> Generator["subprocess.Popen[str]"]:
    """Start a command; it is killed at the end if it has not ended by then."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def url_in(line: str) -> str:
    """Return the address in the line that says it."""
    return next(word.rstrip(";") for word in line.split() if word.startswith("http"))


def test_a_server_makes_a_key_that_the_other_commands_find_and_ends_on_sigterm(
    gyoza: Gyoza,
) -> None:
    with program("server", "start", "--port", "0") as server:
        assert server.stdout is not None
        url = url_in(server.stdout.readline())
        assert f"made now and stored in {stored_key_path()}" in server.stdout.readline()
        assert stored_key_path().stat().st_mode & 0o777 == 0o600
        assert gyoza("runs", "list", "--server-url", url).code == ExitCode.OK
        server.terminate()
        _, err = server.communicate(timeout=30)
    assert server.returncode == ExitCode.OK
    assert "Traceback" not in err


@pytest.mark.parametrize("out", ["/dev/null", "/dev/full"])
def test_a_server_that_logs_json_says_nothing_else(tmp_path: Path, out: str) -> None:
    with open(out, "w") as stdout:
        command = [*COMMAND, "server", "start", "--port", "0", "--log-format", "json"]
        with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            lines = [json.loads(line) for line in iter_until(server.stderr, "Database: ")]
            server.terminate()
            _, rest = server.communicate(timeout=30)
    assert server.returncode == ExitCode.OK
    assert [line["msg"] for line in lines if "listens on http://127.0.0.1:" in line["msg"]]
    assert [line["msg"] for line in lines if str(stored_key_path()) in line["msg"]]
    assert all(json.loads(line) for line in rest.splitlines())


def iter_until(stream: IO[str], text: str) -> Iterator[str]:
    """Yield lines up to the first that has a text."""
    for line in stream:
        yield line
        if text in line:
            return
    raise AssertionError(text)


def test_a_server_whose_output_is_full_serves(tmp_path: Path, gyoza: Gyoza) -> None:
    port = str(free_port())
    with open("/dev/full", "w") as full:
        command = [*COMMAND, "server", "start", "--port", port]
        with subprocess.Popen(command, stdout=full, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            list(iter_until(server.stderr, "connections are served"))
            url = f"http://127.0.0.1:{port}"
            found = gyoza("runs", "list", "--server-url", url)
            server.terminate()
            server.communicate(timeout=30)
    assert found.code == ExitCode.OK
    assert server.returncode == ExitCode.OK


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


def test_a_server_for_all_addresses_says_so() -> None:
    with program("server", "start", "--port", "0", "--host", "0.0.0.0") as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        server.terminate()
        server.communicate(timeout=30)
    assert "listens on http://127.0.0.1:" in line
    assert ", on all addresses of this machine" in line


def interrupted_once(
    monkeypatch: pytest.MonkeyPatch, text: str, look: Callable[[str], None], *command: str
) -> int:
    """Run a command until it has said `text`, look at what it said, press Ctrl-C."""
    out = Watched()
    monkeypatch.setattr(sys, "stdout", out)

    def script() -> None:
        try:
            out.wait_for(text)
            look(out.getvalue())
        finally:
            signal.raise_signal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(script)
        code = main(list(command))
        looking.result(timeout=60)
    return code


def test_a_server_serves_until_ctrl_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def look(said: str) -> None:
        with GyozaClient(url_in(said), KEY) as client:
            assert client.list_workers() == []

    (tmp_path / "key").write_text(KEY)
    command = ["server", "start", "--port", "0", "--api-key-file", str(tmp_path / "key")]
    assert interrupted_once(monkeypatch, "API key", look, *command) == ExitCode.OK


@pytest.mark.docker
def test_up_runs_server_and_worker_until_ctrl_c_drains_the_worker(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def look(said: str) -> None:
        with GyozaClient(url_in(said), stored_key_path().read_text().strip()) as client:
            worker = client.get_worker("both")
        assert (worker["state"], worker["tags"]) == ("online", ["a", "b"])
        assert "both" not in said  # its log has named it

    command = ["up", "--port", "0", "--worker-id", "both", "--worker-tags", "a, b"]
    assert interrupted_once(monkeypatch, "Ready: ", look, *command) == ExitCode.OK
    err = capfd.readouterr().err
    assert err.count("Worker both is ready and takes up to ") == 1
    assert "draining. No new runs; " in err


@pytest.mark.parametrize("command", [["server", "start"], ["up"]])
def test_a_busy_port_is_told(gyoza: Gyoza, tmp_path: Path, command: list[str]) -> None:
    with live_server(tmp_path) as url:
        port = url.rpartition(":")[2]
        result = gyoza(*command, "--port", port)
    assert result.code == ExitCode.MACHINE
    assert port in result.sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["server", "start", "--port", "70000"], "70000 is not a TCP port"),
        (["server", "start", "--database-url", "mysql://x"], "GYOZA_DATABASE_URL"),
        (["server", "start", "--tls-certfile", "no.pem", "--tls-keyfile", "no.key"], "no.pem"),
        (["worker", "start", "--max-concurrency", "0"], "max_concurrency must be at least 1"),
        (["worker", "start", "--worker-id", "../w"], "is not a valid worker id"),
        (["worker", "start", "--server-url", "nowhere"], "is not the URL of a server"),
        (["up", "--grace", "-1"], "grace must be at least 0"),
        (["worker", "start", "--max-runs", "0"], "max_runs must be at least 1"),
        (["worker", "start", "--once", "--max-runs", "2"], "give only one of them"),
        (["worker", "start", "--fence-after", "1"], "at least two heartbeats"),
    ],
)
def test_a_setting_that_cannot_be_used_is_told(
    gyoza: Gyoza, arguments: list[str], words: str
) -> None:
    result = gyoza(*arguments)
    assert result.code in (ExitCode.USAGE, ExitCode.MACHINE)
    assert words in result.sentence


def test_a_variable_that_cannot_be_used_is_told_unless_a_flag_goes_before(
    gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GYOZA_PORT", "http")
    assert "GYOZA_PORT must be a number" in gyoza("server", "start").sentence
    assert "70000" in gyoza("server", "start", "--port", "70000").sentence


@pytest.mark.parametrize("command", [["worker", "start"], ["up", "--port", "0"]])
def test_without_docker_there_is_no_worker_and_what_to_do_is_said(
    gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    result = gyoza(*command, "--log-level", "error")
    assert result.code == ExitCode.MACHINE
    assert result.err.startswith("gyoza: ")
    assert "tcp://127.0.0.1:9" in result.err
    assert result.err.count("\n") == 1


class TerminalSession:
    """A command on a terminal of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.process, self._terminal = process, terminal
        self.shown = ""

    def expect(self, text: str) -> None:
        """Read until `text` has appeared."""
        assert self._shows(text, within_s=30), self.shown

    def _shows(self, text: str, within_s: float) -> bool:
        end = time.monotonic() + within_s
        while text not in self.shown:
            left_s = max(0.0, end - time.monotonic())
            if not select.select([self._terminal], [], [], left_s)[0]:
                return False
            self.shown += os.read(self._terminal, 65536).decode(errors="replace")
        return True

    def interrupt(self, shown: str) -> None:
        """Press Ctrl-C until `shown` has appeared.

        A signal that comes between Python's last look and its read of the terminal waits for the
        next key, as it does for a person.
        """
        for _ in range(5):
            self.type("\x03")
            if self._shows(shown, within_s=6):
                return
        raise AssertionError(self.shown)

    def type(self, text: str) -> None:
        """Type, control characters included."""
        os.write(self._terminal, text.encode())


@pytest.fixture
def on_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TerminalSession]:
    """`gyoza run --follow` on a terminal, in its own session so that Ctrl-C reaches only it."""
    with live_server(tmp_path) as url, played_worker(url) as worker:
        monkeypatch.setenv("GYOZA_SERVER_URL", url)
        monkeypatch.setenv("GYOZA_API_KEY", KEY)
        ours, theirs = pty.openpty()
        follow = [sys.executable, "-c", _ON_TERMINAL, "run", "image", "--follow"]
        with subprocess.Popen(
            follow, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        ) as process:
            os.close(theirs)
            worker.log(worker.start(), "ready\n")
            yield TerminalSession(process, ours)
            process.kill()
        os.close(ours)


# The child makes the terminal its controlling one, which sends it a SIGINT for Ctrl-C.
_ON_TERMINAL = (
    "import fcntl, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "from gyoza.cli.main import main\n"
    "sys.exit(main(sys.argv[1:]))"
)


def test_ctrl_c_on_a_terminal_asks_and_yes_cancels(on_terminal: TerminalSession) -> None:
    on_terminal.expect("ready")
    on_terminal.type("\x03")
    on_terminal.expect("[y/N]")
    on_terminal.type("y\n")
    on_terminal.expect(" was cancelled after ")
    assert on_terminal.process.wait(timeout=30) == ExitCode.FAILED
    assert "Traceback" not in on_terminal.shown


def test_a_second_ctrl_c_on_a_terminal_leaves_the_run(on_terminal: TerminalSession) -> None:
    on_terminal.expect("ready")
    on_terminal.type("\x03")
    on_terminal.expect("[y/N]")
    on_terminal.interrupt("goes on")
    assert on_terminal.process.wait(timeout=30) == ExitCode.INTERRUPTED
    assert "Traceback" not in on_terminal.shown
