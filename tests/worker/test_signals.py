"""The first signal drains, the second stops, the third leaves; as a process and within one."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gyoza.client import AsyncGyozaClient
from gyoza.testing import FakeContainerEngine
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.labels import of_worker
from gyoza.worker.runner import signals
from gyoza.worker.runner.signals import obey_signals
from gyoza.worker.runner.supervisor import open_worker, supervise
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import Resources, WorkerContext
from tests.images import busybox_image
from tests.support.small_server import SmallServer
from tests.worker.programs import sleep_for_ever

__all__ = ["busybox_image"]

DEAF = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]


@pytest.mark.row("shutdown-running")
async def test_the_second_signal_stops_the_runs_and_gives_them_back(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    context = WorkerContext(resources=Resources())
    with trio.fail_after(200):
        async with (
            open_worker(settings, context=context, engine=engine) as worker,
            trio.open_nursery() as process,
        ):
            await process.start(obey_signals, worker)
            async with trio.open_nursery() as working:
                working.start_soon(supervise, worker)
                await server.wait_for_event("STARTED", "run-1")
                signal.raise_signal(signal.SIGTERM)
                await worker.leaving.wait()
                signal.raise_signal(signal.SIGINT)
            process.cancel_scope.cancel()
    assert "POST /runs/run-1/release" in server.requests
    assert not engine.containers


class Left(Exception):
    """The process would have ended here."""


async def test_the_third_signal_leaves_at_once_with_its_number(
    engine: FakeContainerEngine, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(code: int) -> None:
        raise Left(code)

    flushed: list[bool] = []
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(signals.logging, "shutdown", lambda: flushed.append(True))
    context = WorkerContext(resources=Resources())
    with trio.fail_after(200):
        async with open_worker(settings, context=context, engine=engine) as worker:
            with pytest.raises(ExceptionGroup) as caught:
                await interrupted_three_times(worker)
    assert caught.value.exceptions[0].args == (130,)
    assert flushed


async def interrupted_three_times(worker: Worker) -> None:
    async with trio.open_nursery() as process:
        await process.start(obey_signals, worker)
        signal.raise_signal(signal.SIGINT)
        await worker.leaving.wait()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)


class Program:
    """A command as a process, and its log."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = ""

    async def until_it_says(self, text: str) -> None:
        """Read its log until the text has appeared."""
        assert self.process.stderr is not None
        while text not in self.said:
            block = await self.process.stderr.receive_some()
            assert block, self.said
            self.said += block.decode()

    async def end(self) -> int:
        """Read the rest of its log and return its exit code."""
        assert self.process.stderr is not None
        async for block in self.process.stderr:
            self.said += block.decode()
        return await self.process.wait()


@pytest.fixture
async def environment(tmp_path: Path, server: SmallServer) -> AsyncGenerator[dict[str, str]]:
    """What a worker's process gets; its containers are removed afterwards."""
    environment = dict(os.environ) | {
        "GYOZA_SERVER_URL": server.url,
        "GYOZA_API_KEY": "key",
        "GYOZA_WORKER_ID": f"test-signals-{os.getpid()}",
        "GYOZA_WORK_DIR": str(tmp_path / "work"),
        "GYOZA_PULL_POLICY": "never",
        "GYOZA_MAX_CONCURRENCY": "2",
    }
    yield environment
    async with open_docker_engine() as engine:
        for container in await engine.list(of_worker(environment["GYOZA_WORKER_ID"])):
            await engine.remove(container.id)


@asynccontextmanager
async def program(environment: dict[str, str], *arguments: str) -> AsyncGenerator[Program]:
    """Start `gyoza` with these arguments; it is killed at the end if it has not ended by then."""
    command = [sys.executable, "-m", "gyoza.cli.main", *arguments]
    process = await trio.lowlevel.open_process(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()


async def containers_of(environment: dict[str, str]) -> list[str]:
    """Return the states of the worker's containers."""
    async with open_docker_engine() as engine:
        found = await engine.list(of_worker(environment["GYOZA_WORKER_ID"]))
        return [container.state for container in found]


def new_id() -> str:
    """Return a run id that no other test uses at this moment: containers are named after it."""
    return f"run-{uuid.uuid4().hex}"


async def deaf_run(server: SmallServer, image: str) -> str:
    """Submit a run that ignores SIGTERM, and return its id once it does."""
    server.keeps_logs = True
    run_id = new_id()
    server.submit(run_id, image, command=DEAF)
    await server.wait_until(lambda: "deaf" in server.logs.get(run_id, ""))
    return run_id


@pytest.mark.row("shutdown-running")
@pytest.mark.docker
async def test_after_the_second_signal_a_process_ends_with_0_and_leaves_nothing(
    server: SmallServer, environment: dict[str, str], busybox_image: str
) -> None:
    with trio.fail_after(200):
        async with program(environment, "worker", "start", "--grace", "0.2") as worker:
            run_id = await deaf_run(server, busybox_image)
            worker.process.send_signal(signal.SIGTERM)
            await worker.until_it_says("here may finish")
            assert await containers_of(environment) == ["running"]
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.end() == 0
        assert await containers_of(environment) == []
    assert f"POST /runs/{run_id}/release" in server.requests
    assert "Traceback" not in worker.said


@pytest.mark.row("third-signal")
@pytest.mark.docker
@pytest.mark.parametrize("last", [signal.SIGINT, signal.SIGTERM])
async def test_the_third_signal_leaves_a_run_that_the_next_start_takes_up(
    server: SmallServer, environment: dict[str, str], busybox_image: str, last: signal.Signals
) -> None:
    with trio.fail_after(200):
        async with program(environment, "worker", "start", "--grace", "600") as worker:
            run_id = await deaf_run(server, busybox_image)
            worker.process.send_signal(signal.SIGINT)
            await worker.until_it_says("here may finish")
            worker.process.send_signal(signal.SIGTERM)
            await worker.until_it_says("Another signal ends the worker at")
            worker.process.send_signal(last)
            assert await worker.end() == 128 + last
            assert "takes up what runs" in worker.said
        assert await containers_of(environment) == ["running"]
        assert f"POST /runs/{run_id}/release" not in server.requests
        async with program(environment, "worker", "start", "--grace", "0.2") as worker:
            await worker.until_it_says("taken up")
            server.cancel(run_id)
            await worker.until_it_says(f"Run {run_id} was cancelled")
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.end() == 0
        assert await containers_of(environment) == []


@pytest.mark.docker
async def test_the_third_signal_ends_server_and_worker_of_up(
    environment: dict[str, str], busybox_image: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment |= {"GYOZA_DATABASE_URL": f"sqlite:///{tmp_path}/up.sqlite3"}
    up = ["up", "--port", str(port), "--grace", "600"]
    with trio.fail_after(200):
        async with (
            program(environment, *up) as both,
            AsyncGyozaClient(f"http://127.0.0.1:{port}", "key") as client,
        ):
            await both.until_it_says("takes up to")
            run = await client.create_run(busybox_image, {}, command=DEAF)
            while "deaf" not in await client.get_logs(run["id"]):
                await client.get_run(run["id"], after_event=0, wait_s=0.1)
            for said in ("here may finish", "Another signal ends the worker at", "ending at once"):
                both.process.send_signal(signal.SIGTERM)
                await both.until_it_says(said)
            assert await both.end() == 128 + signal.SIGTERM
        assert await containers_of(environment) == ["running"]


@pytest.mark.docker
async def test_once_executes_one_run_and_ends(
    server: SmallServer, environment: dict[str, str], busybox_image: str
) -> None:
    for run_id in (new_id(), new_id()):
        server.submit(run_id, busybox_image, command=["true"])
    with trio.fail_after(200):
        async with program(environment, "worker", "start", "--once") as worker:
            assert await worker.end() == 0
    assert [run["state"] for run in server.runs.values()] == ["COMPLETED", "PENDING"]


def test_signals_that_come_after_the_drain_are_ignored() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signals.ignore_signals()
        for number in before:
            signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
