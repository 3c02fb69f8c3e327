"""The worker is killed while it stops an op that has its own answer to that, on a real engine."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio

from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from tests.e2e.conftest import KEY
from tests.support.deployment import Deployment, Json, open_deployment

pytestmark = pytest.mark.docker

LIMIT_S = 200
STOP = b"/kill?signal=SIGTERM"
OP = """
test $GYOZA_ATTEMPT = 1 || exit 0
trap 'echo stopped; exit {}' TERM
echo '::gyoza::{{"type": "INFO", "msg": "began"}}'
while :; do sleep 0.1; done
"""


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncGenerator[Deployment]:
    """A server, and a worker that is not yet started."""
    settings = ServerSettings(port=0, database_url=f"sqlite:///{tmp_path}/db", api_key=KEY)
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve, settings)
        async with open_deployment(url, KEY, tmp_path) as deployment:
            yield deployment
        nursery.cancel_scope.cancel()


async def stopped_at_its_limit(deployment: Deployment, image: str, exit_code: int) -> str:
    """Start an op, and the worker, which will soon stop it at its time limit."""
    command = ["sh", "-c", OP.format(exit_code)]
    run_id = await deployment.submit(image, command, timeout_s=3, grace_s=60)
    await deployment.start()
    await deployment.until(run_id, "INFO", "began")
    return run_id


async def stopped_by_a_signal(deployment: Deployment, image: str, exit_code: int) -> str:
    """Start an op, and have the worker stop it because it leaves itself."""
    command = ["sh", "-c", OP.format(exit_code)]
    run_id = await deployment.submit(image, command, grace_s=60)
    await deployment.start(GYOZA_DRAIN_TIMEOUT="0")
    await deployment.until(run_id, "INFO", "began")
    deployment.signal()
    return run_id


def assert_timed_out(run: Json) -> None:
    summary = run["execution_summary"]
    assert (run["state"], summary["reason"]) == ("FAILED", "TIMED_OUT"), summary


@pytest.mark.parametrize("exit_code", [0, 99, 143])
async def test_an_op_stopped_at_its_time_limit_timed_out_whatever_it_exits_with(
    deployment: Deployment, busybox_image: str, exit_code: int
) -> None:
    with trio.fail_after(LIMIT_S):
        held = deployment.engine.hold(STOP, passed_on=True)
        run_id = await stopped_at_its_limit(deployment, busybox_image, exit_code)
        await deployment.kill_at(held)
        await deployment.engine_says(f"gyoza-{run_id}-1", "not-running")
        await deployment.start()
        assert_timed_out(await deployment.end_of(run_id))
        await deployment.drain()
        log = await deployment.client.get_logs(run_id)
    assert log == "stopped\n"
    assert await deployment.starts(run_id) == 1


async def test_a_stop_at_the_time_limit_is_carried_on_by_the_third_life_though_two_were_killed(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        held = deployment.engine.hold(STOP, passed_on=False)
        run_id = await stopped_at_its_limit(deployment, busybox_image, 0)
        await deployment.kill_at(held)
        held = deployment.engine.hold(STOP, passed_on=False)
        await deployment.start()
        await deployment.kill_at(held)
        await deployment.start()
        assert_timed_out(await deployment.end_of(run_id))
        await deployment.drain()
        log = await deployment.client.get_logs(run_id)
    assert log == "stopped\n"
    assert await deployment.starts(run_id) == 1


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("exit_code", [0, 1])
async def test_an_op_stopped_with_its_worker_is_given_back_whatever_it_exits_with(
    deployment: Deployment, busybox_image: str, exit_code: int, sent: bool
) -> None:
    with trio.fail_after(LIMIT_S):
        held = deployment.engine.hold(STOP, passed_on=sent)
        run_id = await stopped_by_a_signal(deployment, busybox_image, exit_code)
        await deployment.kill_at(held)
        if sent:
            await deployment.engine_says(f"gyoza-{run_id}-1", "not-running")
        await deployment.start()
        run = await deployment.end_of(run_id)
        await deployment.drain()
    assert (run["state"], run["current_attempt"]) == ("COMPLETED", 2)
    assert await deployment.starts(run_id) == 2
