"""Logs on the command line come whole, however slow the reader and whatever the server does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.cli.errors import ExitCode
from gyoza.cli.main import main
from gyoza.client import AsyncGyozaClient, GyozaClient
from gyoza.models import EventType, OpRun
from gyoza.server.routes import log_stream
from gyoza.server.store import logs
from tests.client.streams import HEAD, Streams, end, piece, streaming
from tests.server.api import KEY as SERVER_KEY
from tests.server.process import ServerProcess

from .conftest import Gyoza
from .live import KEY, PlayedWorker, live_server, played_worker
from .test_views import Screen

RUN = "r" * 32
COMMAND = [sys.executable, "-m", "gyoza.cli.main"]
LINES = [f"line {number:05} {'x' * 87}\n" for number in range(10_000)]
ME: dict[str, Any] = {"worker_id": "w1", "attempt": 1}


@pytest.fixture
def url(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with live_server(tmp_path_factory.mktemp("server")) as url:
        monkeypatch.setenv("GYOZA_SERVER_URL", url)
        monkeypatch.setenv("GYOZA_API_KEY", KEY)
        yield url


def write_all(worker: PlayedWorker, run: OpRun) -> None:
    worker.client.put_logs(run.id, 0, "".join(LINES), worker_id=worker.id, attempt=1)


@pytest.mark.parametrize("stderr", [subprocess.PIPE, subprocess.STDOUT])
def test_a_slow_reader_of_a_followed_run_gets_every_line_and_the_outputs(
    url: str, stderr: int
) -> None:
    command = [*COMMAND, "run", "image", "--follow"]
    with (
        played_worker(url) as worker,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        run = worker.start()
        write_all(worker, run)
        worker.report(run, EventType.COMPLETED, "done", {"n": 1})
        assert process.stdout is not None
        shown = process.stdout.read().decode()  # nobody has read anything until here
        assert process.wait(timeout=60) == ExitCode.OK
    assert [line for line in shown.splitlines(keepends=True) if line.startswith("line ")] == LINES
    assert '{\n  "n": 1\n}\n' in shown


@pytest.mark.parametrize("command", [["run", "image", "--follow"], ["runs", "logs", "-f"]])
def test_ctrl_c_ends_a_command_whose_reader_takes_nothing_more(
    url: str, command: list[str]
) -> None:
    with played_worker(url) as worker, GyozaClient(url, KEY) as client:
        if command[0] == "runs":
            command = [*command, client.create_run("image", {})["id"]]
        with subprocess.Popen(
            [*COMMAND, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            run = worker.start()
            write_all(worker, run)
            assert process.stdout is not None
            assert os.read(process.stdout.fileno(), 5) == b"line "
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == ExitCode.INTERRUPTED
        assert client.get_run(run.id)["state"] == "RUNNING"


@pytest.fixture
def incomplete(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedWorker]:
    """A worker of whose logs the end does not come, though it says when it does."""
    monkeypatch.setattr(logs, "QUIET_S", -1.0)
    monkeypatch.setattr(log_stream, "CONFIRM_S", 0.01)
    with played_worker(url) as worker:
        worker.client.heartbeat(worker.id, {}, marks_log_end=True)
        yield worker


@pytest.mark.parametrize("options", [[], ["--follow"]])
def test_a_log_without_its_end_is_printed_and_told(
    gyoza: Gyoza, incomplete: PlayedWorker, options: list[str]
) -> None:
    incomplete.client.create_run("image", {})
    run = incomplete.start()
    incomplete.log(run, "one\n")
    incomplete.report(run, EventType.COMPLETED, "done", {})
    result = gyoza("runs", "logs", run.id, *options)
    assert (result.code, result.out) == (ExitCode.SERVER, "one\n")
    assert "The end of the log" in result.err
    incomplete.client.append_logs(run.id, 4, "", final=True, **ME)
    result = gyoza("runs", "logs", run.id, *options)
    assert (result.code, result.out, result.err) == (ExitCode.OK, "one\n", "")


@pytest.mark.parametrize(
    ("kind", "code"),
    [(EventType.COMPLETED, ExitCode.SERVER), (EventType.FAILED, ExitCode.FAILED)],
)
def test_a_followed_run_whose_log_lacks_its_end_is_no_success(
    gyoza: Gyoza, incomplete: PlayedWorker, kind: EventType, code: ExitCode
) -> None:
    def script() -> None:
        run = incomplete.start()
        incomplete.log(run, "one\n")
        incomplete.report(run, kind, "done", {})

    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(script)
        result = gyoza("run", "image", "--follow")
        playing.result(timeout=60)
    assert result.code == code
    assert result.out == ("one\n{}\n" if kind == EventType.COMPLETED else "one\n")
    assert result.err.count("The end of the log") == 1


def test_on_a_terminal_colours_end_with_the_log(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    with played_worker(url) as worker:
        worker.client.create_run("image", {})
        run = worker.start()
        worker.log(run, "\x1b[31mred\x1b[2J\n")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["runs", "logs", run.id]) == ExitCode.OK
    assert screen.getvalue() == "\x1b[31mred␛[2J\n\x1b[0m"


# Servers that go away.


@asynccontextmanager
async def restarting(directory: Path) -> AsyncGenerator[tuple[ServerProcess, AsyncGyozaClient]]:
    server = ServerProcess(directory)
    await server.start()
    try:
        async with AsyncGyozaClient(server.url, SERVER_KEY) as client:
            await client.heartbeat("w1", {"cpu_cores": 2, "ram_mb": 2048}, marks_log_end=True)
            yield server, client
    finally:
        with trio.move_on_after(60, shield=True):
            await server.kill()


async def receive_until(stream: trio.abc.ReceiveStream, text: bytes) -> bytes:
    said = b""
    with trio.fail_after(200):
        while text not in said:
            part = await stream.receive_some()
            assert part, said
            said += part
    return said


async def open_command(server: ServerProcess, *arguments: str) -> trio.Process:
    return await trio.lowlevel.open_process(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "GYOZA_SERVER_URL": server.url, "GYOZA_API_KEY": SERVER_KEY},
    )


@pytest.mark.parametrize("command", ["run", "logs", "logs -f"])
async def test_a_log_goes_on_when_the_server_is_back(tmp_path: Path, command: str) -> None:
    async with restarting(tmp_path) as (server, client):
        process = None
        if command == "run":
            process = await open_command(server, "run", "image", "--follow")
        else:
            await client.create_run("image", {})
        (run,) = await client.claim("w1", wait_s=60)
        await client.add_event(run["id"], "STARTED", "go", **ME, seq=0)
        await client.append_logs(run["id"], 0, "first\n", **ME)
        if command == "logs":  # the run is over, and the rest of its log is on its way
            await client.add_event(run["id"], "COMPLETED", "done", {"n": 1}, **ME, seq=1)
        if process is None:
            process = await open_command(server, "runs", *command.split(), run["id"])
        assert process.stdout is not None
        assert process.stderr is not None
        out = await receive_until(process.stdout, b"first\n")
        await server.kill()
        err = await receive_until(process.stderr, b"The server is away, waiting for it up to 5 ")
        await server.start()
        await client.append_logs(run["id"], 6, "second\n", **ME, final=True)
        await client.add_event(run["id"], "COMPLETED", "done", {"n": 1}, **ME, seq=1)
        with trio.fail_after(200):
            async for part in process.stdout:
                out += part
            async for part in process.stderr:
                err += part
            assert await process.wait() == ExitCode.OK
        await process.stdout.aclose()
        await process.stderr.aclose()
    log, _, outputs = out.decode().partition("{")
    assert log == "first\nsecond\n"
    assert not outputs or json.loads("{" + outputs) == {"n": 1}
    assert err.count(b"The server is away") == err.count(b"The server is back.") == 1


async def of_command(server: Streams, *arguments: str) -> int:
    run = json.dumps({"id": RUN, "state": "RUNNING"}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(run)
    server.answers.insert(0, head + run)
    command = ["runs", "logs", RUN, *arguments, "--server-url", server.url]
    return await trio.to_thread.run_sync(main, command)


async def test_a_log_is_given_up_after_a_while_and_its_run_goes_on(
    no_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gyoza.cli.outages.PATIENCE_S", 0.0)
    async with streaming(HEAD + piece(6, "first\n"), b"") as server:
        assert await of_command(server, "--follow") == ExitCode.SERVER
    shown = capsys.readouterr()
    assert shown.out == "first\n"
    assert shown.err.startswith(f"gyoza: Run {RUN} goes on, but nothing of its log came for 0 s: ")
    assert shown.err.count("\n") == 1


async def test_what_is_no_server_of_gyoza_is_waited_out(
    no_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<h1>Sign in</h1>"
    away = b"HTTP/1.1 521 -\r\nServer: cloudflare\r\n\r\n"
    answers = [HEAD + piece(6, "first\n"), away, page, HEAD + piece(13, "second\n") + end()]
    async with streaming(*answers) as server:
        assert await of_command(server) == ExitCode.OK
    shown = capsys.readouterr()
    assert shown.out == "first\nsecond\n"
    assert "cloudflare" in shown.err
    assert shown.err.endswith("The server is back.\n")
