"""The server is killed, or away for a while: nothing is lost, and nothing told twice."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio

from tests.server.api import KEY
from tests.server.process import ServerProcess
from tests.support.chatty_op import chatty, open_pipes
from tests.support.deployment import Deployment, open_deployment

pytestmark = pytest.mark.docker

LIMIT_S = 200
IMPATIENT = (
    sys.executable,
    "-c",
    "import sys; from gyoza.cli.main import main; from gyoza.worker.runner import active_runs, "
    "run_task; active_runs.REPORT_S = run_task.FLUSH_S = 0.5; sys.exit(main())",
)
"""A worker that waits a second, and not half a minute, for a server that is away when it leaves."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ServerProcess]:
    """A server as a process."""
    server = ServerProcess(tmp_path)
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def deployment(server: ServerProcess, tmp_path: Path) -> AsyncGenerator[Deployment]:
    """A worker that is not yet started."""
    async with open_deployment(server.url, KEY, tmp_path) as deployment:
        yield deployment


async def test_a_worker_that_starts_before_its_server_finishes_what_it_had(
    server: ServerProcess, deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await deployment.submit(busybox_image, chatty(2, pauses=True))
        await deployment.start()
        await deployment.until(run_id, "INFO", "to 50")
        async with open_pipes(deployment.directory / f"{run_id}.1") as op:
            await op.waits()
            await deployment.kill()
            await server.kill()
            await op.go_on()
            await op.waits()
            await deployment.start()
            await deployment.server.turns_away(3)
            await server.start()
            await deployment.until(run_id, "INFO", "to 100")
            await op.go_on()
            run = await deployment.ended_whole(run_id, 2)
    assert run["state"] == "COMPLETED"


async def test_a_server_killed_during_a_run_gets_all_that_was_told_meanwhile(
    server: ServerProcess, deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await deployment.submit(busybox_image, chatty(3, pauses=True))
        await deployment.start()
        await deployment.until(run_id, "INFO", "to 50")
        async with open_pipes(deployment.directory / f"{run_id}.1") as op:
            await op.waits()
            await server.kill()
            await op.go_on()
            await op.waits()
            await deployment.server.turns_away(3)
            await server.start()
            await deployment.until(run_id, "INFO", "to 100")
            await op.go_on()
            await op.waits()
            await server.kill()
            await op.go_on()
            await deployment.engine_says(f"gyoza-{run_id}-1", "not-running")
            await deployment.server.turns_away(3)
            await server.start()
            run = await deployment.ended_whole(run_id, 3)
    assert run["state"] == "COMPLETED"


async def test_a_worker_that_leaves_while_its_server_is_away_reports_at_its_next_start(
    server: ServerProcess, deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await deployment.submit(busybox_image, chatty(pauses=True))
        await deployment.start(IMPATIENT, GYOZA_DRAIN_TIMEOUT="0")
        await deployment.until(run_id, "INFO", "to 50")
        async with open_pipes(deployment.directory / f"{run_id}.1") as op:
            await op.waits()
            await server.kill()
            await op.go_on()
            await deployment.engine_says(f"gyoza-{run_id}-1", "removed")
        await deployment.server.turns_away(3)
        deployment.signal()
        assert await deployment.ended() == 0
        await deployment.start()
        await deployment.server.turns_away(3)
        await server.start()
        run = await deployment.ended_whole(run_id)
    assert run["state"] == "COMPLETED"
