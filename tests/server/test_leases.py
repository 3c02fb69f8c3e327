"""Leases, evictions, back-offs and restarts."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from sqlalchemy.exc import OperationalError
from trio.testing import wait_all_tasks_blocked

from gyoza.models import EventType, OpRun, RetryPolicy
from gyoza.server.errors import Conflict
from gyoza.server.leases import run_leases
from gyoza.server.store import claims, logs, reports, runs, workers
from gyoza.server.store.database import Database, Tx
from gyoza.server.wakeups import DUE, Wakeups

from .api import Json, serving, settings_in

LEASE_S = 60.0


class Store:
    """A database with the lease service on a clock that the test turns."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self.database = database
        self.wakeups = wakeups
        self.now = 1000.0

    async def beat(self, worker: str, *running: str) -> Json:
        ops = [{"id": run} for run in running]
        told: Json = {"worker_id": worker, "resources": {}, "tags": []}
        told |= {"running_ops": ops, "draining": False}
        return await self.database.write(
            lambda tx: workers.beat(tx, told, LEASE_S, claiming=False), actor=worker
        )

    async def submit(self, policy: RetryPolicy | None = None) -> str:
        asked = OpRun(id="", image="a", retry_policy=policy or RetryPolicy())
        return await self.database.write(lambda tx: runs.create_run(tx, asked))

    async def claim(self, worker: str, holding: list[str] | None = None) -> list[str]:
        def take(tx: Tx) -> list[str]:
            return [run.id for run in claims.claim(tx, worker, 9, holding, LEASE_S).runs]

        return await self.database.write(take, actor=worker)

    async def report(self, run_id: str, kind: EventType, seq: int | None = None) -> None:
        """Report an event of the first attempt, by w1."""
        report = reports.Report(kind, "x", {}, "w1", 1, seq)
        await self.database.write(lambda tx: reports.add_event(tx, run_id, report))

    async def run(self, run_id: str) -> OpRun:
        return await self.database.read(lambda conn: runs.load_run(conn, run_id))

    async def pass_time(self, seconds: float) -> None:
        """Turn the clock, wake the service, and wait until it has looked."""
        self.now += seconds
        self.wakeups.post([DUE])
        await self.database.write(claims.sweep)


@asynccontextmanager
async def leasing(path: Path, now: float = 1000.0) -> AsyncGenerator[Store, None]:
    wakeups = Wakeups()
    clock = [now]
    database = await Database.open(path / "x.sqlite3", wakeups, lambda: store.now)
    store = Store(database, wakeups)
    store.now = clock[0]
    try:
        async with trio.open_nursery() as nursery:
            service = partial(run_leases, database, wakeups, lambda: store.now, LEASE_S)
            await nursery.start(service)
            yield store
            nursery.cancel_scope.cancel()
    finally:
        await database.aclose()


async def test_a_run_is_taken_from_a_worker_that_does_not_renew_its_lease(tmp_path: Path) -> None:
    async with leasing(tmp_path) as store:
        await store.beat("w1")
        kept, dropped = await store.submit(), await store.submit()
        assert await store.claim("w1") == [kept, dropped]
        await store.pass_time(59)
        await store.beat("w1", kept)
        await store.pass_time(2)
        assert (await store.run(kept)).state == "ASSIGNED"
        lost = await store.run(dropped)
        assert lost.state == "PENDING"
        assert (lost.events[-1].type, lost.events[-1].payload) == (
            "RETRIED",
            {"reason": "WORKER_LOST"},
        )
        answer = await store.beat("w1", kept, dropped)
        assert answer["states"] == {kept: "ASSIGNED", dropped: "PENDING"}
        news, _ = await store.database.read(lambda conn: workers.changes_after(conn, "w1", 0))
        assert news == {dropped: "PENDING"}


async def test_the_fifth_lost_worker_fails_the_run(tmp_path: Path) -> None:
    async with leasing(tmp_path) as store:
        run = await store.submit(RetryPolicy(max_attempts=9))
        for number in range(1, 6):
            await store.beat(f"w{number}")
            assert await store.claim(f"w{number}") == [run]
            await store.pass_time(LEASE_S)
        told = await store.run(run)
        assert (told.state, told.execution_summary.reason) == ("FAILED", "WORKER_LOST")
        assert told.current_attempt == 5
        await store.database.write(lambda tx: reports.retry(tx, run))  # counts start anew
        await store.beat("w6")
        assert await store.claim("w6") == [run]
        await store.pass_time(LEASE_S)
        assert (await store.run(run)).state == "PENDING"


async def test_a_worker_that_came_back_lets_go_of_a_lost_run_before_it_gets_it_again(
    tmp_path: Path,
) -> None:
    async with leasing(tmp_path) as store:
        await store.beat("w1")
        await store.beat("w2")
        runs = [await store.submit(), await store.submit()]
        assert await store.claim("w1") == runs
        await store.pass_time(LEASE_S)
        assert await store.claim("w1", holding=runs) == []
        assert (await store.beat("w1", *runs))["states"] == dict.fromkeys(runs, "PENDING")
        assert await store.claim("w1", holding=runs[1:]) == runs[:1]
        assert await store.claim("w2") == runs[1:]


@pytest.mark.parametrize("claimed", [False, True], ids=["waiting", "claimed again"])
async def test_every_late_word_of_a_worker_that_was_given_up_is_refused(
    tmp_path: Path, claimed: bool
) -> None:
    async with leasing(tmp_path) as store:
        await store.beat("w1")
        await store.beat("w2")
        run = await store.submit()
        await store.claim("w1")
        for seq, kind in enumerate((EventType.STARTED, EventType.INFO)):
            await store.report(run, kind, seq)
        await store.pass_time(LEASE_S)
        assert not claimed or await store.claim("w2") == [run]
        before = await store.run(run)
        for kind in set(EventType) - {EventType.ASSIGNED, EventType.RETRIED}:
            for seq in (0, 1, 2):
                with pytest.raises(Conflict):
                    await store.report(run, kind, seq)
        with pytest.raises(Conflict):
            await store.database.write(lambda tx: logs.append_log(tx, run, 0, b"x", "w1", 1))
        with pytest.raises(Conflict):
            await store.database.write(lambda tx: reports.release(tx, run, "w1", 1, "SHUTDOWN"))
        assert await store.run(run) == before


async def test_a_heartbeat_sent_before_a_claim_was_answered_takes_nothing_away(
    tmp_path: Path,
) -> None:
    async with leasing(tmp_path) as store:
        await store.beat("w1")
        run = await store.submit()
        assert await store.claim("w1", holding=[]) == [run]
        await store.pass_time(LEASE_S - 1)
        await store.beat("w1")  # has been under way since before the claim
        assert (await store.run(run)).state == "ASSIGNED"
        await store.beat("w1", run)
        await store.pass_time(LEASE_S - 1)
        assert (await store.run(run)).state == "ASSIGNED"


async def test_a_restarted_worker_keeps_what_it_lists_and_loses_what_it_forgot(
    tmp_path: Path,
) -> None:
    async with leasing(tmp_path) as store:
        await store.beat("w1")
        kept, forgotten, unheard = [await store.submit() for _ in range(3)]
        assert await store.claim("w1") == [kept, forgotten, unheard]
        for run in (kept, forgotten):
            await store.report(run, EventType.STARTED)
        await store.pass_time(LEASE_S - 1)
        answer = await store.beat("w1", kept)  # the first of its next life
        assert answer["states"] == {kept: "RUNNING"}
        assert await store.claim("w1", holding=[kept]) == [unheard]
        assert await store.claim("w1", holding=[kept, unheard]) == []
        await store.beat("w1", kept, unheard)
        await store.pass_time(1)
        states = [(await store.run(run)).state for run in (kept, forgotten, unheard)]
        assert states == ["RUNNING", "PENDING", "ASSIGNED"]
        assert await store.claim("w1", holding=[kept, unheard]) == [forgotten]


async def test_losses_do_not_use_up_the_retry_policy(tmp_path: Path) -> None:
    async with leasing(tmp_path) as store:
        run = await store.submit(RetryPolicy(max_attempts=2))
        await store.beat("w1")
        await store.claim("w1")
        await store.pass_time(LEASE_S)
        for attempt, state in ((2, "PENDING"), (3, "FAILED")):
            await store.claim("w1")
            report = reports.Report(reports.EventType.FAILED, "x", {}, "w1", attempt)
            await store.database.write(partial(reports.add_event, run_id=run, report=report))
            assert (await store.run(run)).state == state


async def test_a_failed_run_waits_out_a_doubling_back_off(tmp_path: Path) -> None:
    async with leasing(tmp_path) as store:
        run = await store.submit(RetryPolicy(max_attempts=3, backoff_s=10))
        await store.beat("w1")
        for attempt, delay in ((1, 10), (2, 20)):
            assert await store.claim("w1") == [run]
            report = reports.Report(reports.EventType.FAILED, "x", {}, "w1", attempt)
            await store.database.write(partial(reports.add_event, run_id=run, report=report))
            await store.pass_time(delay - 1)
            assert await store.claim("w1") == []
            await store.pass_time(1)
        assert await store.claim("w1") == [run]


async def test_a_person_need_not_wait_for_a_back_off(tmp_path: Path) -> None:
    async with leasing(tmp_path) as store:
        run = await store.submit(RetryPolicy(max_attempts=3, backoff_s=3600))
        await store.beat("w1")
        await store.claim("w1")
        await store.report(run, EventType.FAILED)
        await store.database.write(lambda tx: reports.cancel(tx, run))
        await store.database.write(lambda tx: reports.retry(tx, run))
        assert await store.claim("w1") == [run]


async def test_leases_start_anew_with_the_server(tmp_path: Path) -> None:
    async with leasing(tmp_path) as store:
        await store.beat("w1")
        run = await store.submit()
        await store.claim("w1")
    async with leasing(tmp_path, now=99_000.0) as store:
        await store.pass_time(LEASE_S - 1)
        assert (await store.run(run)).state == "ASSIGNED"
        await store.pass_time(1)
        assert (await store.run(run)).state == "PENDING"


async def changes(store: Store) -> tuple[dict[str, str], int]:
    return await store.database.read(lambda conn: workers.changes_after(conn, "w1", 0))


async def test_changes_are_forgotten_after_a_day(tmp_path: Path) -> None:
    async with leasing(tmp_path) as store:
        await store.beat("w1")
        run = await store.submit()
        await store.claim("w1")
        await store.database.write(lambda tx: reports.cancel(tx, run))
        assert await changes(store) == ({run: "CANCELLED"}, 1)
        await store.pass_time(workers.KEEP_CHANGES_S + 1)
        assert await changes(store) == ({}, 0)
        assert await store.database.read(workers.last_change) == 1  # a cursor never goes back


async def test_the_service_wakes_by_itself_when_a_lease_ends(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path, lease_s=0.1)) as api:
        await api.beat("w1")
        run = await api.submit()
        claimed = await api.claim("w1")
        seen = claimed[0]["events"][-1]["id"]
        told = await api.run(run, after_event=seen, wait_s=20)
        assert told["events"][-1]["payload"] == {"reason": "WORKER_LOST"}
        assert (await api.get("/workers/w1"))["state"] == "lost"


async def test_a_waiting_claim_gets_a_lost_run_once_its_worker_has_let_go(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path, lease_s=0.1)) as api:
        await api.beat("w1")
        run = await api.submit()
        seen = (await api.claim("w1"))[0]["events"][-1]["id"]
        await api.run(run, after_event=seen, wait_s=20)  # lost
        await api.beat("w1", running=(run,))
        got: list[str] = []

        async def wait() -> None:
            got.extend(r["id"] for r in await api.claim("w1", wait_s=20, holding=[run]))

        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await wait_all_tasks_blocked(0.05)
                assert got == []
                await api.beat("w1")
        assert got == [run]


async def test_a_waiting_claim_gets_a_run_when_its_back_off_ends(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as api:
        run = await api.running(retry_policy={"max_attempts": 2, "backoff_s": 0.2})
        await api.event(run, "FAILED", worker_id="w1", attempt=1)
        assert [r["id"] for r in await api.claim(wait_s=20)] == [run]


async def test_a_database_that_is_locked_for_a_while_does_not_end_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, token = trio.Event(), trio.lowlevel.current_trio_token()
    locked = [OperationalError("BEGIN IMMEDIATE", {}, Exception("locked"))]

    def look(tx: Tx) -> float | None:
        if locked:
            raise locked.pop()
        token.run_sync_soon(looked.set)
        return claims.sweep(tx)

    monkeypatch.setattr("gyoza.server.leases.sweep", look)
    monkeypatch.setattr("gyoza.server.leases.RETRY_S", 0.01)
    async with leasing(tmp_path):
        with trio.fail_after(200):
            await looked.wait()


async def test_a_restart_on_the_same_database_keeps_everything(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with serving(settings) as api:
        await api.post("/definitions", {"id": "op", "image": "i"}, 201)
        held = await api.running(event_delivery={"topic": "t"})
        await api.post(f"/runs/{held}/logs", {"offset": 0, "data": "hello"})
        waiting = await api.submit()
        await api.post("/workers/w1/drain")
        paths = ("/runs", f"/runs/{held}", f"/runs/{held}/attempts", "/definitions", "/workers")
        feed = "/events?topic=t"
        before = [await api.get(path) for path in (*paths, feed)]
    async with serving(settings) as api:
        assert [await api.get(path) for path in (*paths, feed)] == before
        assert (await api.client.get(f"/runs/{held}/logs")).text == "hello"
        assert (await api.beat(running=(held,)))["states"] == {held: "RUNNING"}
        await api.event(held, "COMPLETED", worker_id="w1", attempt=1)
        await api.post("/workers/w1/resume")
        assert [r["id"] for r in await api.claim()] == [waiting]
