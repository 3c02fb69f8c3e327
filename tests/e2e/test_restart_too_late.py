"""The worker comes back after something else has become of its run or of its container."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio

from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from tests.containers.daemon import daemon
from tests.e2e.conftest import KEY
from tests.support.chatty_op import OUTPUTS, chatty
from tests.support.deployment import Deployment, Json, open_deployment

pytestmark = pytest.mark.docker

LIMIT_S = 200
ONLY_FIRST_WAITS = "test $GYOZA_ATTEMPT != 1 || pause"
START = b"/start HTTP"


@pytest.fixture
def lease_s() -> float:
    """Seconds that a worker may be away and keep its runs."""
    return 60


@pytest.fixture
async def deployment(tmp_path: Path, lease_s: float) -> AsyncGenerator[Deployment]:
    """A server, and a worker that is not yet started."""
    url = f"sqlite:///{tmp_path}/db"
    settings = ServerSettings(port=0, database_url=url, api_key=KEY, lease_s=lease_s)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve, settings)
        async with open_deployment(url, KEY, tmp_path) as deployment:
            yield deployment
        nursery.cancel_scope.cancel()


async def leave_waiting(deployment: Deployment, image: str, **options: object) -> str:
    """Run an op that waits in its first attempt, and kill the worker then."""
    run_id = await deployment.submit(image, chatty(end=ONLY_FIRST_WAITS), **options)
    await deployment.start()
    await deployment.until(run_id, "INFO", "to 50")
    await deployment.kill()
    return run_id


async def test_a_run_cancelled_meanwhile_is_stopped_and_removed(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await leave_waiting(deployment, busybox_image)
        await deployment.client.cancel_run(run_id)
        await deployment.start()
        await deployment.engine_says(f"gyoza-{run_id}-1", "removed")
        await deployment.drain()
        run = await deployment.client.get_run(run_id)
    assert [e["type"] for e in run["events"] if e["type"] != "INFO"] == [
        "ASSIGNED",
        "STARTED",
        "CANCELLED",
    ]
    assert await deployment.starts(run_id) == 1


@pytest.mark.parametrize("lease_s", [1.5])
async def test_a_run_whose_lease_ended_meanwhile_is_executed_anew(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await leave_waiting(deployment, busybox_image)
        await deployment.until(run_id, "RETRIED")
        await deployment.start()
        await deployment.engine_says(f"gyoza-{run_id}-1", "removed")
        await deployment.drain()
        await deployment.start()
        run = await deployment.end_of(run_id)
        await deployment.drain()
    assert (run["state"], run["current_attempt"], run["outputs"]) == ("COMPLETED", 2, OUTPUTS)
    assert await deployment.starts(run_id) == 2


@pytest.mark.parametrize("lease_s", [3])
async def test_a_run_that_another_worker_has_meanwhile_is_stopped_and_left_to_it(
    deployment: Deployment, busybox_image: str
) -> None:
    other = "another-worker"
    beat: Json = {"worker_id": other, "resources": {}, "tags": []}
    held: Json = {"worker_id": other, "attempt": 2}
    with trio.fail_after(LIMIT_S):
        run_id = await leave_waiting(deployment, busybox_image)
        await deployment.client.heartbeat(**beat, running_ops=[])
        [claimed] = await deployment.client.claim(other, max_runs=1, wait_s=30)
        await deployment.client.add_event(run_id, "STARTED", "started", **held)
        ops: list[Json] = [{"id": run_id, "image": "i", "inputs": {}}]
        async with trio.open_nursery() as nursery:

            async def keep_lease() -> None:
                while True:
                    await deployment.client.heartbeat(**beat, running_ops=ops)
                    await trio.sleep(0.2)

            nursery.start_soon(keep_lease)
            await deployment.start()
            await deployment.engine_says(f"gyoza-{run_id}-1", "removed")
            await deployment.drain()
            nursery.cancel_scope.cancel()
        run = await deployment.client.get_run(run_id)
    assert (claimed["id"], claimed["current_attempt"]) == (run_id, 2)
    assert (run["state"], run["worker_id"]) == ("RUNNING", other)
    assert await deployment.starts(run_id) == 1


async def test_a_time_limit_that_passed_meanwhile_ends_the_run(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        started = deployment.engine.hold(START, passed_on=True)  # or it would end it itself
        run_id = await deployment.submit(busybox_image, chatty(pauses=True), timeout_s=0.1)
        await deployment.start()
        await deployment.kill_at(started)
        await deployment.start()
        run = await deployment.end_of(run_id)
        await deployment.drain()
    assert (run["state"], run["current_attempt"]) == ("FAILED", 1)
    assert run["execution_summary"]["reason"] == "TIMED_OUT"
    assert await deployment.starts(run_id) == 1


async def test_a_run_whose_container_was_killed_meanwhile_is_given_back(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await leave_waiting(deployment, busybox_image)
        with daemon() as engine:
            engine.post(f"/containers/gyoza-{run_id}-1/kill")
        await deployment.engine_says(f"gyoza-{run_id}-1", "not-running")
        await deployment.start()
        run = await deployment.end_of(run_id)
        await deployment.drain()
    assert (run["state"], run["current_attempt"], run["outputs"]) == ("COMPLETED", 2, OUTPUTS)
    assert await deployment.starts(run_id) == 2


async def test_a_worker_killed_while_it_gives_a_run_back_gives_it_back_at_its_next_start(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        released = deployment.server.hold(b"/release HTTP", passed_on=False)
        run_id = await deployment.submit(busybox_image, chatty(end=ONLY_FIRST_WAITS))
        await deployment.start(GYOZA_DRAIN_TIMEOUT="0")
        await deployment.until(run_id, "INFO", "to 50")
        deployment.signal()
        await deployment.kill_at(released)
        await deployment.start()
        run = await deployment.end_of(run_id)
        await deployment.drain()
    assert (run["state"], run["current_attempt"], run["outputs"]) == ("COMPLETED", 2, OUTPUTS)
    assert await deployment.starts(run_id) == 2
