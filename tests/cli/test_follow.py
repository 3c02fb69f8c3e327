"""`gyoza run --follow`, against a real server with somebody playing the worker."""

import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from gyoza.cli.errors import ExitCode
from gyoza.cli.follow import follow_run
from gyoza.cli.main import main
from gyoza.client import Access, GyozaClient
from gyoza.models import EventType, OpRun

from .conftest import Gyoza, Result, Watched
from .live import KEY, PlayedWorker, live_server, played_worker

Follow = Callable[..., Result]

ID = "[0-9a-f]{8}"


@pytest.fixture
def url(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with live_server(tmp_path_factory.mktemp("server")) as url:
        monkeypatch.setenv("GYOZA_SERVER_URL", url)
        monkeypatch.setenv("GYOZA_API_KEY", KEY)
        yield url


@pytest.fixture
def follow(gyoza: Gyoza, url: str) -> Iterator[Follow]:
    """Follows a run that a worker in a thread executes as `script` says."""
    with ThreadPoolExecutor(1) as pool:

        def run(script: Callable[[PlayedWorker], None], *arguments: str) -> Result:
            with played_worker(url) as worker:
                playing = pool.submit(script, worker)
                result = gyoza("run", "image", "--follow", *arguments)
                playing.result(timeout=60)
                return result

        yield run


def succeed(worker: PlayedWorker) -> None:
    run = worker.start()
    worker.report(run, EventType.INFO, "warming up")
    worker.report(run, EventType.PROGRESS, 40)
    worker.log(run, "first\nsecond, without")
    worker.log(run, " its end")
    worker.report(run, EventType.COMPLETED, "done", {"sum": 3, "word": "ä"})


def test_log_and_outputs_are_the_result_and_the_rest_is_told_beside(follow: Follow) -> None:
    result = follow(succeed)
    assert result.code == ExitCode.OK
    log, _, outputs = result.out.partition("{")
    assert log == "first\nsecond, without its end\n"
    assert json.loads("{" + outputs) == {"sum": 3, "word": "ä"}
    told = result.err.splitlines()
    assert told[0].startswith("Run ")
    assert "INFO: warming up" in told
    ended = rf"Run {ID} completed in \d+\.\d s on w1\."
    assert re.fullmatch(ended, told[-1])
    assert result.err.upper().count("COMPLETED") == 1


def test_with_json_standard_output_is_the_run_alone(follow: Follow) -> None:
    result = follow(succeed, "--json")
    run = OpRun.from_dict(json.loads(result.out))
    assert (run.state, run.outputs) == ("COMPLETED", {"sum": 3, "word": "ä"})
    assert "second, without its end" in result.err


def test_a_run_that_fails_says_why_and_exits_with_1(follow: Follow) -> None:
    def script(worker: PlayedWorker) -> None:
        run = worker.start()
        worker.report(run, EventType.ERROR, "no such word")
        worker.fail(run, "The container exited with 3.")

    result = follow(script)
    assert result.code == ExitCode.FAILED
    assert result.out == ""
    assert "ERROR: no such word" in result.err
    ended = rf"Run {ID} FAILED after \d+\.\d s on w1: The container exited with 3\."
    assert re.fullmatch(ended, result.err.splitlines()[-1])
    assert result.err.count("FAILED") == 1


def test_a_run_that_is_cancelled_elsewhere_exits_with_1(follow: Follow) -> None:
    def script(worker: PlayedWorker) -> None:
        worker.client.cancel_run(worker.start().id)

    result = follow(script, "--json")
    assert result.code == ExitCode.FAILED
    assert json.loads(result.out)["state"] == "CANCELLED"
    ended = rf"Run {ID} was cancelled after \d+\.\d s on w1\."
    assert re.fullmatch(ended, result.err.splitlines()[-1])


def test_the_log_of_every_attempt_is_followed(follow: Follow) -> None:
    def script(worker: PlayedWorker) -> None:
        run = worker.start()
        worker.log(run, "from the first\n")
        worker.fail(run, "The container exited with 3.")
        run = worker.start()
        worker.log(run, "from the second\n")
        worker.report(run, EventType.COMPLETED, "done", {})

    result = follow(script, "--max-attempts", "2")
    assert result.code == ExitCode.OK
    assert result.out == "from the first\nfrom the second\n{}\n"
    assert result.err.endswith(" on w1, attempt 2.\n")


class Terminal(io.StringIO):
    """Standard input of a person who answers, or presses Ctrl-C a second time."""

    def __init__(self, answer: str | None) -> None:
        super().__init__()
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self, _size: int | None = -1, /) -> str:
        if self._answer is None:
            raise KeyboardInterrupt
        return self._answer


def interrupt(
    url: str, monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO
) -> tuple[int, str, str]:
    """Follow a run, press Ctrl-C once its log has begun; return exit code, id and state.

    What was shown before is not shown again after the question.
    """
    out = Watched()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", stdin)

    def script(worker: PlayedWorker) -> OpRun:
        run = worker.start()
        worker.log(run, "ready\n")
        out.wait_for("ready")
        signal.raise_signal(signal.SIGINT)
        return run

    with ThreadPoolExecutor(1) as pool, played_worker(url) as worker:
        playing = pool.submit(script, worker)
        code = main(["run", "image", "--follow"])
        run_id = playing.result(timeout=60).id
        assert out.getvalue() == "ready\n"
        return code, run_id, worker.client.get_run(run_id)["state"]


def test_ctrl_c_and_yes_cancels_the_run_and_waits_for_its_end(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, run_id, state = interrupt(url, monkeypatch, Terminal("y\n"))
    assert code == ExitCode.FAILED
    assert state == "CANCELLED"
    err = capfd.readouterr().err
    assert f"Cancel run {run_id}? [y/N] " in err
    assert re.search(rf"Run {run_id[:8]} was cancelled after \d+\.\d s on w1\.\n$", err)


def test_after_ctrl_c_and_yes_nothing_is_shown_once_more(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = Watched()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))

    def script(worker: PlayedWorker) -> None:
        run = worker.start()
        worker.log(run, "one\n")
        worker.report(run, EventType.INFO, "said once")
        worker.fail(run, "The container exited with 3.")
        run = worker.start()
        worker.log(run, "two\nwith")
        out.wait_for("two")
        signal.raise_signal(signal.SIGINT)
        worker.log(run, "out its end")

    with ThreadPoolExecutor(1) as pool, played_worker(url) as worker:
        playing = pool.submit(script, worker)
        code = main(["run", "image", "--follow", "--max-attempts", "2"])
        playing.result(timeout=60)
    assert code == ExitCode.FAILED
    assert out.getvalue() == "one\ntwo\nwithout its end\n"
    assert capfd.readouterr().err.count("said once") == 1


@pytest.mark.parametrize(
    "stdin", [Terminal("n\n"), Terminal(""), Terminal(None), io.StringIO("y\n")]
)
def test_ctrl_c_without_a_yes_leaves_the_run_and_says_how_to_look_at_it(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    stdin: io.StringIO,
) -> None:
    code, run_id, state = interrupt(url, monkeypatch, stdin)
    assert code == ExitCode.INTERRUPTED
    assert state == "RUNNING"
    err = capfd.readouterr().err
    assert f"Run {run_id} goes on: `gyoza runs logs -f {run_id}` follows it" in err
    assert ("[y/N]" in err) is stdin.isatty()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command give up at once when the server goes away."""
    monkeypatch.setenv("GYOZA_API_KEY", KEY)
    monkeypatch.setattr("gyoza.cli.follow.PATIENCE_S", 0.0)
    monkeypatch.setattr("gyoza.cli.follow.POLL_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_goes_away_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = Watched()
    monkeypatch.setattr(sys, "stdout", out)
    with ExitStack() as server, ThreadPoolExecutor(1) as pool:
        url = server.enter_context(live_server(tmp_path))

        def script() -> str:
            with server, played_worker(url) as worker:
                run = worker.start()
                worker.log(run, "ready\n")
                out.wait_for("ready")
                return run.id

        playing = pool.submit(script)
        code = main(["run", "image", "--follow", "--server-url", url])
        run_id = playing.result(timeout=60)
    assert code == ExitCode.SERVER
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"gyoza: Run {run_id} goes on, but ")
    assert f"`gyoza runs logs --follow {run_id}` follows it again." in last


@pytest.mark.usefixtures("impatient")
def test_a_server_that_goes_away_before_the_run_has_a_log_is_told_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    err = Watched()
    monkeypatch.setattr(sys, "stderr", err)
    with ExitStack() as server, ThreadPoolExecutor(1) as pool:
        url = server.enter_context(live_server(tmp_path))

        def script() -> None:
            with server:
                err.wait_for("waiting for a worker")

        playing = pool.submit(script)
        code = main(["run", "image", "--follow", "--server-url", url])
        playing.result(timeout=60)
    assert code == ExitCode.SERVER
    *_, last = err.getvalue().splitlines()
    assert "goes on, but the server has been away for 0 s: " in last


def test_a_run_that_is_deleted_while_it_is_followed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GYOZA_API_KEY", KEY)
    monkeypatch.setattr("gyoza.cli.follow.POLL_S", 0.1)
    out = Watched()
    monkeypatch.setattr(sys, "stdout", out)
    with live_server(tmp_path) as url, played_worker(url) as worker, ThreadPoolExecutor(1) as pool:

        def script() -> None:
            worker.log(worker.start(), "ready\n")
            out.wait_for("ready")
            database = sqlite3.connect(tmp_path / "gyoza.sqlite3")
            with closing(database) as connection, connection:
                connection.execute("DELETE FROM runs")

        playing = pool.submit(script)
        code = main(["run", "image", "--follow", "--server-url", url])
        playing.result(timeout=60)
    assert code == ExitCode.USAGE
    assert "gyoza: There is no run" in capfd.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback(url: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "gyoza.cli.main", "run", "image", "--follow"]
    with (
        os.fdopen(writer) as gone,
        played_worker(url) as worker,
        subprocess.Popen(command, stdout=gone, stderr=subprocess.PIPE, text=True) as process,
    ):
        worker.log(worker.start(), "text\n")
        _, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.FAILED
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_a_run_that_is_over_shows_its_end_at_once(gyoza: Gyoza, url: str) -> None:
    with GyozaClient(url, KEY) as client:
        run_id = client.create_run("image", {})["id"]
        client.cancel_run(run_id)
    assert follow_run(Access(url=url, api_key=KEY), run_id) is ExitCode.FAILED
