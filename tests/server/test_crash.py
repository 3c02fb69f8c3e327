"""The server is killed in the middle of its work: what it has answered is there, and only once."""

import random
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from .api import KEY, Api, Json
from .process import ServerProcess

SUBMITTERS, WORKERS, RUNS_EACH, KILLS = 3, 4, 20, 3
Attempt = tuple[str, int]


@dataclass
class Answered:
    """All that a server has ever answered with success."""

    submitted: dict[str, str] = field(default_factory=dict[str, str])
    cancelled: set[str] = field(default_factory=set[str])
    claimed: dict[Attempt, str] = field(default_factory=dict[Attempt, str])
    said: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    logged: dict[Attempt, str] = field(default_factory=dict[Attempt, str])
    ended: dict[Attempt, str] = field(default_factory=dict[Attempt, str])

    @property
    def over(self) -> bool:
        """Whether every run there is to be has ended."""
        ends = {run for (run, _), end in self.ended.items() if end != "RETRIED"} | self.cancelled
        return len(ends) == SUBMITTERS * RUNS_EACH


class World:
    """Many clients at once, who repeat to the next life whatever the last one did not answer."""

    def __init__(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        self.client = client
        self.draw = draw
        self.answered = Answered()
        self.up = trio.Event()
        self._left = 0
        self._enough = trio.Event()

    async def ask(self, path: str, body: Json | None = None, **more: Any) -> httpx.Response:
        """Send a request until it is answered."""
        while True:
            await self.up.wait()
            try:
                response = await self.client.post(path, json=body, **more)
            except httpx.TransportError:
                continue
            self._left -= 1
            if self._left <= 0:
                self._enough.set()
            assert response.status_code in (200, 201, 409), response.text
            return response

    async def answers(self, number: int) -> None:
        """Wait for so many more answers."""
        self._left, self._enough = number, trio.Event()
        await self._enough.wait()

    async def submit(self, name: int) -> None:
        for number in range(RUNS_EACH):
            key = f"{name}-{number}"
            headers = {"Idempotency-Key": key}
            response = await self.ask("/runs", {"image": "i", "inputs": {}}, headers=headers)
            run = self.answered.submitted[key] = response.json()["id"]
            if number % 4 == 3 and (await self.ask(f"/runs/{run}/cancel")).is_success:
                self.answered.cancelled.add(run)

    async def work(self, name: str) -> None:
        while True:
            await self.ask("/workers/heartbeat", {"worker_id": name})
            wish: Json = {"holding": [], "wait_s": 0.2}
            response = await self.ask(f"/workers/{name}/claim", wish)
            for run in response.json()["runs"]:
                attempt: int = run["current_attempt"]
                self.answered.claimed[run["id"], attempt] = name
                await self._execute(run["id"], attempt, {"worker_id": name, "attempt": attempt})

    async def _execute(self, run: str, attempt: int, me: Json) -> None:
        if not await self._report(run, {"type": "STARTED", "msg": "go", "seq": 0, **me}):
            return
        text = ""
        for seq in (1, 2):
            msg = f"attempt {attempt} line {seq}"
            if not await self._report(run, {"type": "INFO", "msg": msg, "seq": seq, **me}):
                return
            self.answered.said.append((run, msg))
            chunk = {"offset": len(text), "data": f"{msg}\n", **me}
            if (await self.ask(f"/runs/{run}/logs", chunk)).is_success:
                text += f"{msg}\n"
                self.answered.logged[run, attempt] = text
        end = self.draw.choice(["COMPLETED", "FAILED", "RETRIED"])
        if end == "RETRIED":
            given = {"reason": f"SHUTDOWN {attempt}", **me}
            taken = (await self.ask(f"/runs/{run}/release", given)).is_success
        else:
            outputs = {"attempt": attempt}
            taken = await self._report(run, {"type": end, "payload": outputs, "seq": 3, **me})
        if taken:
            self.answered.ended[run, attempt] = end

    async def _report(self, run: str, body: Json) -> bool:
        return (await self.ask(f"/runs/{run}/events", body)).is_success


async def check(api: Api, answered: Answered) -> None:
    """Compare what was answered with what the server says."""
    listed = (await api.get("/runs", limit=500))["data"]
    assert {run["id"] for run in listed} >= set(answered.submitted.values())
    runs: dict[str, Json] = {run["id"]: await api.run(run["id"]) for run in listed}
    said = {(run_id, e["msg"]): e for run_id, run in runs.items() for e in run["events"]}
    count = Counter((run_id, e["msg"]) for run_id, run in runs.items() for e in run["events"])
    assert all(run["state"] == "CANCELLED" for i, run in runs.items() if i in answered.cancelled)
    assert all(count[line] == 1 for line in answered.said)
    for (run_id, attempt), text in answered.logged.items():
        log = await api.client.get(f"/runs/{run_id}/logs", params={"attempt": attempt})
        assert log.text.startswith(text)
    for run_id in {run_id for run_id, _ in answered.claimed}:
        attempts = await api.get(f"/runs/{run_id}/attempts")
        kinds = Counter(e["type"] for e in runs[run_id]["events"])
        assert kinds["ASSIGNED"] == len(attempts) == runs[run_id]["current_attempt"]
        for attempt, events in zip(attempts, by_attempt(runs[run_id]["events"]), strict=True):
            number: int = attempt["attempt"]
            told = Counter(e["type"] for e in events)
            assert max(told.values()) == 1 or told["INFO"] == 2
            end = answered.ended.get((run_id, number))
            assert end is None or told[end] == 1
            assert end != "COMPLETED" or runs[run_id]["outputs"] == {"attempt": number}
            reason = {"reason": f"SHUTDOWN {number}"}
            assert end != "RETRIED" or reason in [e["payload"] for e in events]
    assert said.keys() >= set(answered.said)


def by_attempt(events: list[Json]) -> list[list[Json]]:
    """Part the events of a run by its attempts, each of which begins with ASSIGNED."""
    parts: list[list[Json]] = []
    for event in events:
        if event["type"] == "ASSIGNED":
            parts.append([])
        if parts:
            parts[-1].append(event)
    return parts


@asynccontextmanager
async def server_process(directory: Path) -> AsyncGenerator[tuple[ServerProcess, Api]]:
    """A first life of a server and a client of it."""
    server = ServerProcess(directory)
    await server.start()
    try:
        async with httpx.AsyncClient(
            base_url=server.url, headers={"X-API-Key": KEY}, timeout=60
        ) as client:
            yield server, Api(client, server.url, trio.CancelScope())
    finally:
        with trio.move_on_after(10, shield=True):
            await server.kill()


async def test_what_was_answered_before_a_kill_is_there_after_it_and_only_once(
    tmp_path: Path,
) -> None:
    draw = random.Random()
    with trio.fail_after(200):
        async with server_process(tmp_path) as (server, api), trio.open_nursery() as nursery:
            world = World(api.client, draw)
            for number in range(SUBMITTERS):
                nursery.start_soon(world.submit, number)
            for number in range(WORKERS):
                nursery.start_soon(world.work, f"w{number}")
            world.up.set()
            for _ in range(KILLS):
                await world.answers(draw.randint(40, 120))
                world.up = trio.Event()
                await server.kill()
                await server.start()
                await check(api, world.answered)
                world.up.set()
            while not world.answered.over:
                await world.answers(1)
            nursery.cancel_scope.cancel()
        async with server_process(tmp_path) as (_, api):
            await check(api, world.answered)
            assert len((await api.get("/runs", limit=500))["data"]) == SUBMITTERS * RUNS_EACH
    with sqlite3.connect(tmp_path / "server.sqlite3") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_a_cancel_answered_before_a_kill_reaches_the_worker_after_it(
    tmp_path: Path,
) -> None:
    with trio.fail_after(200):
        async with server_process(tmp_path) as (server, api):
            told, missed = await api.running(), await api.running()
            cursor = (await api.get("/workers/w1/changes"))["cursor"]
            await api.post(f"/runs/{told}/cancel")
            news = await api.get("/workers/w1/changes", after=cursor, wait_s=60)
            assert news["states"] == {told: "CANCELLED"}
            await api.post(f"/runs/{missed}/cancel")
            await server.kill()
            await server.start()
            after = await api.get("/workers/w1/changes", after=news["cursor"], wait_s=60)
            assert after["states"] == {missed: "CANCELLED"}
            states = (await api.beat(running=(told, missed)))["states"]
            assert states == dict.fromkeys((told, missed), "CANCELLED")
            event = {"worker_id": "w1", "attempt": 1, "seq": 1}
            await api.event(missed, "COMPLETED", **event, status=409)
