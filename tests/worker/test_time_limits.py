"""A time limit stops a container as a cancel does, and is reported as what it is."""

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever
from tests.worker.stopping import (
    RUN,
    assert_nothing_is_left,
    called,
    cancel_here,
    short_waits,
)

__all__ = ["short_waits"]


@pytest.mark.row("timeout-running")
@pytest.mark.parametrize(
    ("deaf", "signals"), [(False, ["ask_to_stop"]), (True, ["ask_to_stop", "kill"])]
)
async def test_a_time_limit_stops_the_container_in_the_same_way_and_is_reported(
    deaf: bool,
    signals: list[str],
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    engine.add_image("sleeper", sleep_for_ever, handles_stop=deaf)
    server.submit(RUN, "sleeper", timeout_s=0.1, grace_s=0.05)
    with trio.fail_after(200):
        async with start_worker(grace_s=600) as worker:
            failed = await server.wait_for_event("FAILED", RUN)
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert failed["payload"]["reason"] == "TIMED_OUT"
    assert called(engine, "ask_to_stop", "kill") == signals


@pytest.mark.row("timeout-cancelled")
async def test_a_run_cancelled_while_its_time_limit_stops_it_has_not_failed(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    asked, finish = trio.Event(), trio.Event()

    async def finish_when_told(container: FakeContainer) -> int:
        await container.stop_asked.wait()
        asked.set()
        await finish.wait()
        return 0

    engine.add_image("slow", finish_when_told, handles_stop=True)
    server.submit(RUN, "slow", timeout_s=0.1)
    with trio.fail_after(200):
        async with start_worker() as worker:
            await asked.wait()
            await cancel_here(server, worker)
            finish.set()
            await end_of(worker, RUN)
            assert_nothing_is_left(worker, engine)
    assert server.told == ["STARTED"]
