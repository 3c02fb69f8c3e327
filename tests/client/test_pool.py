"""Connections under many requests at once, of which many are given up."""

from pathlib import Path
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from gyoza.client import AsyncGyozaClient
from tests.server.api import KEY, serving, settings_in

TASKS = 200


async def test_requests_given_up_in_any_phase_keep_no_connection_from_later_ones(
    tmp_path: Path,
) -> None:
    async with (
        serving(settings_in(tmp_path)) as api,
        AsyncGyozaClient(api.url, KEY) as client,
    ):
        run = await api.submit()
        answers: list[str] = []

        async def wait(scope: trio.CancelScope) -> None:
            with scope:
                answers.append((await client.get_run(run, after_event=-1, wait_s=60))["state"])

        async def give_up(scope: trio.CancelScope, after: int) -> None:
            for _ in range(after):  # connecting, sending, or waiting for the answer
                await trio.lowlevel.checkpoint()
            scope.cancel()

        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                scopes = [trio.CancelScope() for _ in range(TASKS)]
                for number, scope in enumerate(scopes):
                    nursery.start_soon(wait, scope)
                    if number % 4 == 0:
                        nursery.start_soon(give_up, scope, number)
                await wait_all_tasks_blocked(0.2)
                for scope in scopes[1::4]:
                    scope.cancel()
                await client.cancel_run(run)
        assert len(answers) >= TASKS // 2
        assert set(answers) == {"CANCELLED"}
        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(client.get_run, run)


async def test_a_hundred_runs_report_beside_each_other(tmp_path: Path) -> None:
    count = 100
    async with (
        serving(settings_in(tmp_path)) as api,
        AsyncGyozaClient(api.url, KEY) as client,
    ):
        await api.beat()
        for _ in range(count):
            await api.submit()
        claimed = await api.claim(max_runs=count)

        async def report(run_id: str) -> None:
            who: dict[str, Any] = {"worker_id": "w1", "attempt": 1}
            await client.add_event(run_id, "STARTED", "go", **who, seq=0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: client.add_event(run_id, "INFO", "x", **who, seq=1))
                nursery.start_soon(lambda: client.append_logs(run_id, 0, "text", **who))
            await client.release_run(run_id, **who, reason="SHUTDOWN")

        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                for run in claimed:
                    nursery.start_soon(report, run["id"])
        runs = (await api.get("/runs", limit=500))["data"]
        assert [run["state"] for run in runs] == ["PENDING"] * count
