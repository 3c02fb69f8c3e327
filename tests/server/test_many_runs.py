"""Correctness under load: ten thousand runs through one server, by workers that claim at once.

The simulated workers speak raw HTTP, since clients of httpx would take longer than the server.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.client.connection import Connection
from tests.benchmarks.light_client import LightConnection

from .api import KEY, serving, settings_in

RUNS, WORKERS, SUBMITTERS, AT_ONCE = 10_000, 8, 4, 25
LIMIT_S = 1800


class Ledger:
    """What was submitted, and what each worker was given and told of."""

    def __init__(self) -> None:
        self.submitted: list[str] = []
        self.claimed: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.attempts: set[int] = set()

    async def submit(self, connection: LightConnection, left: Iterator[int]) -> None:
        for number in left:
            run = await connection.post("/runs", {"image": "a", "inputs": {"n": number}})
            self.submitted.append(run["id"])

    async def work(self, connection: LightConnection, worker: str) -> None:
        told: dict[str, Any] = {"worker_id": worker, "resources": {}, "running_ops": []}
        await connection.post("/workers/heartbeat", told)
        while self.completed.total() < RUNS:
            ask: dict[str, Any] = {"max_runs": AT_ONCE, "wait_s": 1, "holding": []}
            for run in (await connection.post(f"/workers/{worker}/claim", ask))["runs"]:
                self.claimed[run["id"]] += 1
                self.attempts.add(run["current_attempt"])
                report = {"worker_id": worker, "attempt": run["current_attempt"], "msg": ""}
                for kind in ("STARTED", "COMPLETED"):
                    answer = await connection.post(
                        f"/runs/{run['id']}/events", {**report, "type": kind}
                    )
                self.completed[answer["id"]] += answer["state"] == "COMPLETED"


@pytest.mark.timeout(LIMIT_S + 60)
async def test_of_ten_thousand_runs_none_is_lost_and_each_runs_once(tmp_path: Path) -> None:
    ledger = Ledger()
    async with serving(settings_in(tmp_path, rate_limit=0)) as api:
        where = Connection(api.url, KEY)
        connections = [await LightConnection.open(where) for _ in range(WORKERS + SUBMITTERS)]
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                left = iter(range(RUNS))
                for number, connection in enumerate(connections):
                    if number < WORKERS:
                        nursery.start_soon(ledger.work, connection, f"w{number}")
                    else:
                        nursery.start_soon(ledger.submit, connection, left)
        for connection in connections:
            await connection.aclose()
        for state in ("PENDING", "ASSIGNED", "RUNNING", "FAILED", "CANCELLED"):
            assert (await api.get("/runs", state=state))["data"] == []
    once = Counter(ledger.submitted)
    assert len(once) == RUNS
    assert ledger.claimed == ledger.completed == once
    assert ledger.attempts == {1}
