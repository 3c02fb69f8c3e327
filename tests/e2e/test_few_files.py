"""A worker that may open few files, and has far more slots than files for them."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio

from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from tests.e2e.conftest import KEY
from tests.support.deployment import Deployment, open_deployment

pytestmark = pytest.mark.docker

START = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from gyoza.worker import backoff
from gyoza.worker.runner import slots
{more}
from gyoza.cli.main import main
sys.exit(main())
"""

CARELESS = "slots.RESERVE, backoff.CAP_S = -20_000, 2"
"""Lets a worker take as many runs as it is told to, so that it runs out of files."""


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncGenerator[Deployment]:
    """A server, and a worker that is not yet started."""
    settings = ServerSettings(port=0, database_url=f"sqlite:///{tmp_path}/db", api_key=KEY)
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve, settings)
        async with open_deployment(url, KEY, tmp_path) as deployment:
            yield deployment
        nursery.cancel_scope.cancel()


async def complete(deployment: Deployment, image: str, runs: int) -> list[int]:
    """Execute so many runs; return in how many attempts each has COMPLETED."""
    say = ["sh", "-c", "echo words; sleep 1"]
    ids = [await deployment.submit(image, say) for _ in range(runs)]
    ended = [await deployment.end_of(run_id) for run_id in ids]
    assert [run["state"] for run in ended] == ["COMPLETED"] * runs
    assert [await deployment.client.get_logs(run_id) for run_id in ids] == ["words\n"] * runs
    return [run["current_attempt"] for run in ended]


async def test_a_worker_takes_no_more_runs_than_it_has_files_for(
    deployment: Deployment, busybox_image: str
) -> None:
    program = START.format(soft=100, hard=256, more="")
    command = (sys.executable, "-c", program)
    with trio.fail_after(280):
        await deployment.start(command, GYOZA_MAX_CONCURRENCY="200")
        assert await complete(deployment, busybox_image, 25) == [1] * 25
        worker = await deployment.client.get_worker(deployment.worker_id)
        await deployment.drain()
    assert 1 < worker["max_concurrency"] < 20
    told = deployment.log.read_text()
    assert "256 files and connections may be open at a time." in told
    assert f"Of 200 slots only {worker['max_concurrency']} are used" in told


async def test_a_worker_that_runs_out_of_files_fails_no_run(
    deployment: Deployment, busybox_image: str
) -> None:
    program = START.format(soft=80, hard=80, more=CARELESS)
    command = (sys.executable, "-c", program)
    with trio.fail_after(280):
        await deployment.start(command, GYOZA_MAX_CONCURRENCY="200")
        attempts = await complete(deployment, busybox_image, 15)
        await deployment.drain()
    assert max(attempts) > 1
    assert "is given back: This worker lacks open files" in deployment.log.read_text()
