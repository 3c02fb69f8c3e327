"""A server with a reverse proxy before it, and those who reach it through the proxy."""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import trio

from gyoza.client import Access, AsyncGyozaClient, GyozaClient
from gyoza.worker.runner.supervisor import run_worker
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from tests.server.api import Api, serving, settings_in
from tests.support.reverse_proxy import ReverseProxy, Setup, open_reverse_proxy

ENDS = ("COMPLETED", "FAILED", "CANCELLED")

Json = dict[str, Any]


def port_of(url: str) -> int:
    """Return the port that a URL names."""
    return urlsplit(url).port or 0


@asynccontextmanager
async def open_site(
    setup: Setup, folder: Path, **settings: Any
) -> AsyncGenerator[tuple[Api, ReverseProxy]]:
    """Run a server with a proxy before it; the `Api` asks the server itself."""
    async with (
        serving(settings_in(folder, **{"root_path": setup.path} | settings)) as api,
        open_reverse_proxy(setup, port_of(api.url)) as proxy,
    ):
        yield api, proxy


@asynccontextmanager
async def open_worker(access: Access, folder: Path, **settings: Any) -> AsyncGenerator[Path]:
    """Run a worker; yields the folder where it has its run directories."""
    work = WorkerSettings(
        server_url=access.url,
        api_key=access.api_key,
        ca_file=access.ca_file,
        worker_id=f"proxied-{uuid4().hex}",  # other tests use this engine, too
        work_dir=folder / "work",
        pull_policy="never",
        max_concurrency=4,
        **settings,
    )
    directory = work.work_dir / work.worker_id
    async with trio.open_nursery() as nursery:
        worker: Worker = await nursery.start(partial(run_worker, work))
        yield directory
        worker.drain()
    assert not list(directory.iterdir())


async def gyoza(access: Access, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command to its end."""
    return await trio.run_process(
        _command(*arguments),
        env=_variables(access),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gyoza.cli.main", *arguments]


def _variables(access: Access) -> dict[str, str]:
    given = {
        "GYOZA_SERVER_URL": access.url,
        "GYOZA_API_KEY": access.api_key,
        "GYOZA_CA_FILE": access.ca_file,
        "GYOZA_CLIENT_CERT": access.client_cert,
        "GYOZA_CLIENT_KEY": access.client_key,
    }
    return os.environ | {name: value for name, value in given.items() if value}


async def run_once(client: AsyncGyozaClient, run_id: str, reached: Callable[[Json], bool]) -> Json:
    """Return a run as soon as this is true of it, woken by its events."""
    run = await client.get_run(run_id)
    while not reached(run):
        run = await with_news(client, run)
    return run


async def with_news(client: AsyncGyozaClient, run: Json) -> Json:
    """Return a run with what has become of it, once there is news or after a while."""
    news = await client.get_run(run["id"], after_event=len(run["events"]) - 1, wait_s=30)
    return news | {"inputs": run["inputs"], "events": run["events"] + news["events"]}


def ended(run: Json) -> bool:
    """Whether a run is over."""
    return run["state"] in ENDS


def has_told(msg: str) -> Callable[[Json], bool]:
    """Return whether a run has an event with these words."""
    return lambda run: any(event["msg"] == msg for event in run["events"])


class Told:
    """Text as somebody gets it piece by piece."""

    def __init__(self) -> None:
        self.text = ""
        self._news = trio.Event()

    def add(self, text: str) -> None:
        """Take in a piece."""
        self.text += text
        self._news.set()
        self._news = trio.Event()

    async def until(self, part: str) -> None:
        """Wait until this has come."""
        while part not in self.text:
            await self._news.wait()


class Followers:
    """The command and both clients, each following the log of one run to its end.

    Attributes:
        done: All of them have come to the end.
    """

    def __init__(self, access: Access, run_id: str) -> None:
        self._access = access
        self._run_id = run_id
        self._told = {"command": Told(), "blocking": Told(), "trio": Told()}
        self.done = trio.Event()

    @property
    def texts(self) -> dict[str, str]:
        """What each of them has got."""
        return {name: told.text for name, told in self._told.items()}

    async def until(self, part: str) -> None:
        """Wait until each of them has got this."""
        for told in self._told.values():
            await told.until(part)

    async def follow(self) -> None:
        """Follow the log to its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._by_command)
            nursery.start_soon(self._by_blocking_client)
            nursery.start_soon(self._by_trio_client)
        self.done.set()

    async def _by_command(self) -> None:
        process = await trio.lowlevel.open_process(
            _command("runs", "logs", "--follow", self._run_id),
            env=_variables(self._access),
            stdout=subprocess.PIPE,
        )
        try:
            assert isinstance(process.stdout, trio.abc.ReceiveStream)
            async for part in process.stdout:
                self._told["command"].add(part.decode())
            assert await process.wait() == 0
        finally:
            process.kill()

    async def _by_blocking_client(self) -> None:
        def follow() -> None:
            with GyozaClient(self._access) as client:
                for text in client.follow_logs(self._run_id):
                    trio.from_thread.run_sync(self._told["blocking"].add, text)

        await trio.to_thread.run_sync(follow, abandon_on_cancel=True)

    async def _by_trio_client(self) -> None:
        async with (
            AsyncGyozaClient(self._access) as client,
            aclosing(client.follow_logs(self._run_id)) as texts,
        ):
            async for text in texts:
                self._told["trio"].add(text)
