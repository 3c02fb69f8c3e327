"""Very many workers that speak the whole protocol and run nothing."""

import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

import trio

from gyoza.client.connection import Connection
from gyoza.worker.backoff import LONG_POLL_S, spread
from tests.benchmarks.light_client import LightConnection

HEARTBEAT_S = 5.0
CONNECTING, SUBMITTING = 50, 16

Json = dict[str, Any]


class SimulatedWorkers:
    """Workers of one server: each waits for claims and changes, and does at once what it gets.

    Attributes:
        ended: Runs reported COMPLETED.
    """

    def __init__(self, server: Connection) -> None:
        self.ended = 0
        self._server = server
        self._awaited = 0
        self._all_ended = trio.Event()
        self._heartbeats: list[tuple[str, LightConnection]] = []
        self._claims: list[tuple[str, LightConnection]] = []
        self._changes: list[tuple[str, LightConnection]] = []
        self._submits: list[LightConnection] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, server: Connection, count: int) -> AsyncGenerator[Self]:
        """Connect them all; they claim until the block ends."""
        fleet = cls(server)
        try:
            names = [f"worker-{number}" for number in range(count)]
            async with trio.open_nursery() as nursery:
                for part in range(CONNECTING):
                    nursery.start_soon(fleet._connect, names[part::CONNECTING])
            async with trio.open_nursery() as nursery:
                for name, connection in fleet._claims:
                    nursery.start_soon(fleet._work, name, connection)
                for name, connection in fleet._changes:
                    nursery.start_soon(_listen, name, connection)
                yield fleet
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(10, shield=True):
                await fleet._close()

    async def wave(self, runs: int) -> list[float]:
        """Submit runs, have them all done; return how many seconds each heartbeat took."""
        self._awaited = self.ended + runs
        self._all_ended = trio.Event()
        took: list[float] = []
        async with trio.open_nursery() as nursery:
            for name, connection in self._heartbeats:
                nursery.start_soon(self._beat, name, connection, took)
            left = iter(range(runs))
            for connection in self._submits:
                nursery.start_soon(partial(_submit, connection, left))
        return took

    async def _connect(self, names: list[str]) -> None:
        for name in names:
            beats, claims, changes = [await LightConnection.open(self._server) for _ in range(3)]
            await beats.post("/workers/heartbeat", _heartbeat(name))
            self._heartbeats.append((name, beats))
            self._claims.append((name, claims))
            self._changes.append((name, changes))
        if len(self._submits) < SUBMITTING:
            self._submits.append(await LightConnection.open(self._server))

    async def _close(self) -> None:
        for _, connection in (*self._heartbeats, *self._claims, *self._changes):
            await connection.aclose()
        for connection in self._submits:
            await connection.aclose()

    async def _beat(self, name: str, connection: LightConnection, took: list[float]) -> None:
        wait_s = random.uniform(0, HEARTBEAT_S)
        while True:
            with trio.move_on_after(wait_s):
                await self._all_ended.wait()
                return
            start = time.perf_counter()
            await connection.post("/workers/heartbeat", _heartbeat(name))
            took.append(time.perf_counter() - start)
            wait_s = max(0.0, HEARTBEAT_S - took[-1])

    async def _work(self, name: str, connection: LightConnection) -> None:
        while True:
            ask: Json = {"max_runs": 1, "wait_s": spread(LONG_POLL_S), "holding": []}
            for run in (await connection.post(f"/workers/{name}/claim", ask))["runs"]:
                report = {"worker_id": name, "attempt": run["current_attempt"]}
                for seq, kind in enumerate(("STARTED", "COMPLETED")):
                    told = {**report, "type": kind, "msg": "", "seq": seq}
                    await connection.post(f"/runs/{run['id']}/events", told)
                self.ended += 1
                if self.ended == self._awaited:
                    self._all_ended.set()


async def _listen(name: str, connection: LightConnection) -> None:
    path = f"/workers/{name}/changes"
    cursor = (await connection.get(path))["cursor"]
    while True:
        news = await connection.get(f"{path}?after={cursor}&wait_s={spread(LONG_POLL_S)}")
        assert not news["states"]
        cursor = news["cursor"]


async def _submit(connection: LightConnection, left: Any) -> None:
    for _ in left:
        await connection.post("/runs", {"image": "busybox", "inputs": {}})


def _heartbeat(name: str) -> Json:
    resources: Json = {"cpu_cores": 8, "ram_mb": 16_000, "gpus": []}
    return {"worker_id": name, "resources": resources, "tags": ["linux"], "running_ops": []}
