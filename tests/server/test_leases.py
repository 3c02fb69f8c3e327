"""Leases, evictions, back-offs and restarts."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, OperationalError
from trio.testing import wait_all_tasks_blocked

from gyoza.models import EventType, OpRun, RetryPolicy
from gyoza.server.errors import Conflict
from gyoza.server.json_text import EMPTY
from gyoza.server.leases import Leases
from gyoza.server.service import Service
from gyoza.server.store import claims, logs, op_events, reports, runs, submission, workers
from gyoza.server.store.database import Database, Tx
from gyoza.server.store.texts import Stored
from gyoza.server.wakeups import Wakeups

from .api import Json, serving, settings_in

LEASE_S = 60.0


class Store:
    """A database, and its leases on a clock that the test turns."""

    def __init__(self, database: Database, now: float) -> None:
        self.database = database
        self.now = self.steady = now
        self.leases = Leases(database, lambda: self.now, LEASE_S, lambda: self.steady)

    async def beat(self, worker: str, *running: str) -> Json:
        ops = [{"id": run} for run in running]
        told: Json = {"worker_id": worker, "resources": {}, "tags": []}
        told |= {"running_ops": ops, "draining": False}
        return await self.database.write(
            lambda tx: workers.beat(tx, told, LEASE_S, claiming=False), actor=worker
        )

    async def submit(self, policy: RetryPolicy | None = None) -> str:
        asked = OpRun(id="", image="a", retry_policy=policy or RetryPolicy())
        return await self.database.write(
            lambda tx: submission.create_run(tx, asked, Stored(EMPTY, 2)).id
        )

    async def claim(self, worker: str, holding: list[str] | None = None) -> list[str]:
        def take(tx: Tx) -> list[str]:
            return [
                run.id for run in claims.claim(tx, claims.Wish(worker, 9, holding), LEASE_S).runs
            ]

        return await self.database.write(take, actor=worker)

    async def report(self, run_id: str, kind: EventType, seq: int | None = None) -> None:
        """Report an event of the first attempt, by w1."""
        report = op_events.Report(kind, "x", EMPTY, "w1", 1, seq)
        await self.database.write(lambda tx: reports.add_event(tx, run_id, report))

    async def run(self, run_id: str) -> OpRun:
        def look(conn: Connection) -> OpRun:
            found = runs.load_run(conn, runs.find_row(conn, run_id))
            told = {name: json.loads(text) for name, text in found.texts.items()}
            return OpRun.from_dict(found.run.to_dict() | told)

        return await self.database.read(look)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, in which the server looks at the leases as often as it should."""
        while seconds > 0:
            step = min(seconds, self.leases.every_s)
            seconds -= step
            await self.skip_time(step)

    async def skip_time(self, seconds: float, by_clock: float | None = None) -> None:
        """Let time pass in which the server does not look, and then let it look."""
        self.steady += seconds
        self.now += seconds if by_clock is None else by_clock
        await self.leases.look()


@asynccontextmanager
async def leasing(path: Path, now: float = 1000.0) -> AsyncGenerator[Store, None]:
    database = await Database.open(path / "x.sqlite3", Wakeups(), lambda: store.now)
    store = Store(database, now)
    try:
        await store.leases.look()
        yield store
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
            report = op_events.Report(reports.EventType.FAILED, "x", EMPTY, "w1", attempt)
            await store.database.write(partial(reports.add_event, run_id=run, report=report))
            assert (await store.run(run)).state == state


async def test_a_failed_run_waits_out_a_doubling_back_off(tmp_path: Path) -> None:
    async with leasing(tmp_path) as store:
        run = await store.submit(RetryPolicy(max_attempts=3, backoff_s=10))
        await store.beat("w1")
        for attempt, delay in ((1, 10), (2, 20)):
            assert await store.claim("w1") == [run]
            report = op_events.Report(reports.EventType.FAILED, "x", EMPTY, "w1", attempt)
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
        await store.skip_time(workers.KEEP_CHANGES_S + 1)
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
                await wait_all_tasks_blocked(0.005)
                assert got == []
                await api.beat("w1")
        assert got == [run]


async def test_a_waiting_claim_gets_a_run_when_its_back_off_ends(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as api:
        run = await api.running(retry_policy={"max_attempts": 2, "backoff_s": 0.2})
        await api.event(run, "FAILED", worker_id="w1", attempt=1)
        assert [r["id"] for r in await api.claim(wait_s=20)] == [run]


async def held(store: Store) -> str:
    """Return a run that a worker has claimed just now."""
    await store.beat("w1")
    run = await store.submit()
    assert await store.claim("w1") == [run]
    return run


async def is_held_for_a_lease(store: Store, run: str) -> bool:
    """Return whether the run is its worker's for the time of a lease from now on, and no longer."""
    await store.pass_time(LEASE_S - 1)
    before = (await store.run(run)).state
    await store.pass_time(1)
    return (before, (await store.run(run)).state) == ("ASSIGNED", "PENDING")


async def test_leases_begin_anew_after_a_time_in_which_the_server_stood_still(
    tmp_path: Path,
) -> None:
    async with leasing(tmp_path) as store:
        run = await held(store)
        await store.skip_time(10 * LEASE_S)
        assert await is_held_for_a_lease(store, run)


@pytest.mark.parametrize("leap", [3600.0, -3600.0, LEASE_S, -LEASE_S])
async def test_leases_begin_anew_when_the_clock_leaps(tmp_path: Path, leap: float) -> None:
    async with leasing(tmp_path, now=10_000.0) as store:
        run = await held(store)
        await store.pass_time(LEASE_S / 2)
        await store.skip_time(1, by_clock=leap)
        assert await is_held_for_a_lease(store, run)


async def test_leases_begin_anew_after_a_heartbeat_that_could_not_be_stored(
    tmp_path: Path,
) -> None:
    async with leasing(tmp_path) as store:
        run = await held(store)
        await store.pass_time(LEASE_S - 1)
        store.leases.note_missed()
        await store.pass_time(1)
        assert await is_held_for_a_lease(store, run)


async def test_leases_begin_anew_after_a_look_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with leasing(tmp_path) as store:
        run = await held(store)
        await store.pass_time(LEASE_S - 10)
        with monkeypatch.context() as patch:
            patch.setattr("gyoza.server.leases.sweep", locked)
            with pytest.raises(OperationalError):
                await store.pass_time(1)
        await store.pass_time(9)
        assert await is_held_for_a_lease(store, run)


def locked(_tx: Tx) -> None:
    raise OperationalError("BEGIN IMMEDIATE", {}, Exception("locked"))


@pytest.mark.parametrize("leap", [7200.0, -7200.0])
async def test_a_back_off_is_as_long_as_asked_for_when_the_clock_leaps(
    tmp_path: Path, leap: float
) -> None:
    async with leasing(tmp_path, now=10_000.0) as store:
        run = await store.submit(RetryPolicy(max_attempts=2, backoff_s=100))
        await store.beat("w1")
        await store.claim("w1")
        await store.report(run, EventType.FAILED)
        await store.skip_time(1, by_clock=leap)
        await store.pass_time(98)
        assert await store.claim("w1") == []
        await store.pass_time(2)
        assert await store.claim("w1") == [run]


async def test_a_back_off_of_a_clock_that_was_set_back_meanwhile_is_no_longer_than_asked_for(
    tmp_path: Path,
) -> None:
    async with leasing(tmp_path, now=90_000.0) as store:
        run = await store.submit(RetryPolicy(max_attempts=2, backoff_s=100))
        await store.beat("w1")
        await store.claim("w1")
        await store.report(run, EventType.FAILED)
    async with leasing(tmp_path, now=1000.0) as store:
        await store.pass_time(100)
        assert await store.claim("w1") == [run]


async def test_a_worker_is_not_told_lost_before_it_could_be_heard_for_a_lease(
    tmp_path: Path,
) -> None:
    async with leasing(tmp_path, now=10_000.0) as store:
        await store.beat("w1")
        wakeups = Wakeups()
        service = Service(store.database, wakeups, lambda: store.now, LEASE_S, store.leases)

        async def state() -> str:
            since = service.heard_since
            shown = await store.database.read(lambda conn: workers.show_worker(conn, "w1", since))
            return shown["state"]

        await store.skip_time(10 * LEASE_S)
        assert await state() == "online"
        await store.skip_time(1, by_clock=-9000)
        await store.pass_time(LEASE_S - 1)
        assert await state() == "online"
        await store.pass_time(2)
        assert await state() == "lost"


async def test_an_error_that_nobody_foresaw_does_not_end_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gyoza.server.repeat.FIRST_S", 0.01)
    errors = [
        OperationalError("BEGIN IMMEDIATE", {}, Exception("locked")),
        DatabaseError("SELECT", {}, Exception("database disk image is malformed")),
        RuntimeError("nobody\nforesaw this"),
    ]
    looks = iter([None, *errors])

    def look(tx: Tx) -> claims.Swept:
        if error := next(looks, None):
            raise error
        return claims.sweep(tx)

    monkeypatch.setattr("gyoza.server.leases.sweep", look)
    async with serving(settings_in(tmp_path, lease_s=0.1)) as api:
        await api.beat("w1")
        run = await api.submit()
        seen = (await api.claim("w1"))[0]["events"][-1]["id"]
        told = await api.run(run, after_event=seen, wait_s=60)
        assert told["events"][-1]["payload"] == {"reason": "WORKER_LOST"}
    said = [r.getMessage() for r in caplog.records if "Leases cannot be looked at" in r.message]
    assert len(said) == len(errors)
    assert all("\n" not in line for line in said)


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
