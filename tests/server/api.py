"""A real server on a free port, and short words for its requests."""

import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio

from gyoza.models.limits import NEXT_PAGE
from gyoza.server import ServerSettings, serve
from gyoza.server.limits import Limits

KEY = "the-key"
Json = dict[str, Any]


class Api:
    """Requests to one server; each returns the parsed answer after checking its status."""

    def __init__(self, client: httpx.AsyncClient, url: str, stop: trio.CancelScope) -> None:
        self.client = client
        self.url = url
        self.stop = stop

    async def ask(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        with trio.fail_after(200):
            response = await self.client.request(method, path, **kwargs)
        assert response.status_code == status, response.text
        return response.json()

    async def get(self, path: str, status: int = 200, **params: Any) -> Any:
        return await self.ask("GET", path, status, params=params or None)

    async def post(self, path: str, body: Any = None, status: int = 200, **kwargs: Any) -> Any:
        return await self.ask("POST", path, status, json=body, **kwargs)

    async def detail(self, method: str, path: str, status: int, **kwargs: Any) -> str:
        """Return the sentence of an error."""
        answer = await self.ask(method, path, status, **kwargs)
        assert list(answer) == ["detail"]
        return answer["detail"]

    async def submit(self, **more: Any) -> str:
        run = await self.post("/runs", {"image": "alpine", "inputs": {"n": 1}, **more}, 201)
        return run["id"]

    async def beat(self, worker: str = "w1", running: tuple[str, ...] = (), **more: Any) -> Json:
        ops: list[Json] = [{"id": run, "image": "alpine", "inputs": {}} for run in running]
        body: Json = {"worker_id": worker, "resources": {}, "tags": [], "running_ops": ops, **more}
        return await self.post("/workers/heartbeat", body)

    async def claim(self, worker: str = "w1", max_runs: int = 1, **more: Any) -> list[Json]:
        body = {"max_runs": max_runs, **more}
        return (await self.post(f"/workers/{worker}/claim", body))["runs"]

    async def event(
        self, run: str, kind: str, msg: Any = "said", status: int = 200, **more: Any
    ) -> Json:
        return await self.post(f"/runs/{run}/events", {"type": kind, "msg": msg, **more}, status)

    async def run(self, run: str, **params: Any) -> Json:
        return await self.get(f"/runs/{run}", **params)

    async def running(self, worker: str = "w1", **more: Any) -> str:
        """Return a run that the worker has started."""
        run = await self.submit(**more)
        if (await self.client.get(f"/workers/{worker}")).status_code == 404:
            await self.beat(worker)
        assert [r["id"] for r in await self.claim(worker)] == [run]
        await self.event(run, "STARTED", worker_id=worker, attempt=1)
        return run


def linked(page: str) -> list[str]:
    """Return what a page loads."""
    return re.findall(r'(?:src|href)="([^"]+)"', page)


def settings_in(directory: Path, **more: Any) -> ServerSettings:
    url = f"sqlite:///{directory / 'server.sqlite3'}"
    return replace(ServerSettings(port=0, database_url=url, api_key=KEY), **more)


async def raw_request(api: Api, method: str, path: str, body: str = "") -> trio.SocketStream:
    """Send a request on a connection of its own, which the test may close at any time."""
    host, port = api.url.removeprefix("http://").split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    await stream.send_all((head + body).encode())
    return stream


@asynccontextmanager
async def serving(
    settings: ServerSettings,
    verify: Any = False,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncGenerator[Api, None]:
    """Run a server as long as the block."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial(serve, settings, limits=limits, clock=clock))
        async with httpx.AsyncClient(
            base_url=url, headers={"X-API-Key": KEY}, timeout=60, verify=verify
        ) as client:
            yield Api(client, url, nursery.cancel_scope)
        nursery.cancel_scope.cancel()


async def delete(api: Api, path: str) -> None:
    """Delete something."""
    response = await api.client.request("DELETE", path)
    assert (response.status_code, response.content) == (204, b"")


async def pages_of(api: Api, path: str, limit: int) -> list[list[Json]]:
    """Return a list page by page."""
    pages: list[list[Json]] = []
    params: dict[str, Any] = {"limit": limit}
    while True:
        response = await api.client.get(path, params=params)
        assert response.status_code == 200, response.text
        pages.append(response.json())
        if NEXT_PAGE not in response.headers:
            return pages
        params["starting_after"] = response.headers[NEXT_PAGE]
