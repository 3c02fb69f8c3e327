"""A run that is no longer this worker's is stopped here, however the worker learns it."""

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever
from tests.worker.stopping import (
    RELEASE,
    RUN,
    assert_nothing_is_left,
    called,
    short_waits,
    succeed_with_output,
)

__all__ = ["short_waits"]


async def speak_and_sleep(container: FakeContainer) -> int:
    await container.stdout(b'::gyoza::{"type": "PROGRESS", "msg": 1}\n')
    return await sleep_for_ever(container)


@pytest.mark.row("lease-lost")
@pytest.mark.parametrize("told_by", ["changes", "heartbeat", "question"])
async def test_a_run_that_the_server_gave_away_is_stopped_here(
    told_by: str, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit(RUN, "sleeper")
    if told_by == "changes":
        server.changes = [{"states": {}, "cursor": "1"}]
    with trio.fail_after(200):
        async with start_worker(heartbeat_s=0.05) as worker:
            await server.wait_for_event("STARTED", RUN)
            if told_by == "changes":
                server.changes.append({"states": {RUN: "PENDING"}, "cursor": "2"})
            elif told_by == "heartbeat":
                server.told_at_heartbeats = {RUN: "PENDING"}
            else:
                server.runs[RUN]["worker_id"] = "another"
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]
    assert called(engine, "ask_to_stop", "kill") == ["ask_to_stop"]
    assert RELEASE not in server.requests


@pytest.mark.row("lease-refused")
@pytest.mark.parametrize("status", [404, 409])
async def test_no_container_starts_for_a_run_whose_start_the_server_refuses(
    status: int, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    server.refuse_type("STARTED", status, "Not yours.")
    with trio.fail_after(200):
        async with start_worker() as worker:
            with engine.hold("pull") as gate:
                server.submit(RUN, "quick")
                await gate.reached.wait()
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert not called(engine, "start")
    assert not server.events
    assert RELEASE not in server.requests


@pytest.mark.row("lease-refused")
@pytest.mark.parametrize("status", [404, 409])
async def test_a_container_whose_event_the_server_refuses_is_stopped(
    status: int, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("speaker", speak_and_sleep)
    server.refuse_type("PROGRESS", status, "Not yours.")
    server.submit(RUN, "speaker")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", RUN)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]
    assert called(engine, "ask_to_stop", "kill") == ["ask_to_stop"]


@pytest.mark.row("lease-reporting")
@pytest.mark.parametrize("status", [404, 409])
async def test_a_report_that_the_server_refuses_is_left_out(
    status: int, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick", succeed_with_output)
    server.refuse_type("COMPLETED", status, "Not yours.")
    server.submit(RUN, "quick")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", RUN)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]
