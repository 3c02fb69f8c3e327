"""The worker is killed at any point, on a real engine: its next start finishes what it began."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio

from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from tests.e2e.conftest import KEY
from tests.support.chatty_op import chatty, check_told, open_pipes
from tests.support.deployment import Deployment, open_deployment

pytestmark = pytest.mark.docker

LIMIT_S = 200


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncGenerator[Deployment]:
    """A server, and a worker that is not yet started."""
    settings = ServerSettings(port=0, database_url=f"sqlite:///{tmp_path}/db", api_key=KEY)
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve, settings)
        async with open_deployment(url, KEY, tmp_path) as deployment:
            yield deployment
        nursery.cancel_scope.cancel()


CLAIM = b"/claim HTTP"
STARTED = b'"type":"STARTED"'
COMPLETED = b'"type":"COMPLETED"'
FIND_IMAGE = b"/images/"
CREATE = b"/containers/create?"
ATTACH = b"/attach?"
START = b"/start HTTP"
REMOVE = b"DELETE /"

POINTS = [
    pytest.param("server", CLAIM, True, id="claimed"),
    pytest.param("engine", FIND_IMAGE, False, id="recorded-before-pull"),
    pytest.param("server", STARTED, False, id="before-started"),
    pytest.param("server", STARTED, True, id="started-taken"),
    pytest.param("engine", CREATE, False, id="before-create"),
    pytest.param("engine", CREATE, True, id="created"),
    pytest.param("engine", ATTACH, True, id="attached"),
    pytest.param("engine", START, False, id="before-start"),
    pytest.param("engine", START, True, id="started"),
    pytest.param("engine", REMOVE, False, id="exited-before-removal"),
    pytest.param("engine", REMOVE, True, id="removed"),
    pytest.param("server", COMPLETED, False, id="before-report"),
    pytest.param("server", COMPLETED, True, id="report-taken"),
]


@pytest.mark.parametrize(("service", "request_part", "passed_on"), POINTS)
async def test_a_run_is_finished_once_wherever_the_worker_was_killed(
    service: str, request_part: bytes, passed_on: bool, deployment: Deployment, busybox_image: str
) -> None:
    proxy = deployment.server if service == "server" else deployment.engine
    with trio.fail_after(LIMIT_S):
        held = proxy.hold(request_part, passed_on=passed_on)
        run_id = await deployment.submit(busybox_image, chatty())
        await deployment.start()
        await deployment.kill_at(held)
        await deployment.start()
        run = await deployment.ended_whole(run_id)
    assert run["state"] == "COMPLETED"


async def test_logs_go_on_where_they_were_when_the_worker_was_killed(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await deployment.submit(busybox_image, chatty(3, 4000, pauses=True))
        await deployment.start()
        await deployment.until(run_id, "INFO", "to 4000")
        async with open_pipes(deployment.directory / f"{run_id}.1") as op:
            await op.waits()
            await deployment.kill()
            await op.go_on()
            await op.waits()  # it has written its second part to nobody
            await deployment.start()
            await deployment.until(run_id, "INFO", "to 8000")
            await op.go_on()
            await op.waits()
            await op.go_on()
            run = await deployment.ended_whole(run_id, 3, 4000)
    assert run["state"] == "COMPLETED"


async def test_a_worker_killed_in_the_middle_of_a_flood_loses_and_repeats_nothing(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await deployment.submit(busybox_image, chatty(6, 10_000))
        for part in ("began", "to 10000", "to 30000"):
            await deployment.start()
            await deployment.until(run_id, "INFO", part)
            await deployment.kill()
        await deployment.start()
        run = await deployment.ended_whole(run_id, 6, 10_000)
    assert run["state"] == "COMPLETED"


async def test_containers_that_exit_while_no_worker_is_there_are_reported(
    deployment: Deployment, busybox_image: str
) -> None:
    ends = {"": "", "exit 3": "", "printf 'no end of line'": "no end of line", "exit 255": ""}
    with trio.fail_after(LIMIT_S):
        commands = [chatty(pauses=True, end=end) for end in ends]
        run_ids = [await deployment.submit(busybox_image, command) for command in commands]
        await deployment.start()
        for run_id in run_ids:
            await deployment.until(run_id, "INFO", "to 50")
        await deployment.kill()
        for run_id in run_ids:
            async with open_pipes(deployment.directory / f"{run_id}.1") as op:
                await op.waits()
                await op.go_on()
                await deployment.engine_says(f"gyoza-{run_id}-1", "not-running")
        await deployment.start()
        runs = [await deployment.end_of(run_id) for run_id in run_ids]
        await deployment.drain()
        logs = [await deployment.client.get_logs(run_id) for run_id in run_ids]
    assert [run["state"] for run in runs] == ["COMPLETED", "FAILED", "COMPLETED", "FAILED"]
    for run, exit_code in ((runs[1], 3), (runs[3], 255)):
        assert run["execution_summary"]["exit_code"] == exit_code
        assert run["execution_summary"]["reason"] == "EXIT_CODE"
    for run, log, more in zip(runs, logs, ends.values(), strict=True):
        check_told(run, log, more=more)
        assert await deployment.starts(run["id"]) == 1


async def test_a_run_survives_one_kill_after_the_other(
    deployment: Deployment, busybox_image: str
) -> None:
    points = [
        (deployment.engine, CREATE, True),
        (deployment.server, STARTED, True),
        (deployment.engine, START, True),
        (deployment.server, COMPLETED, False),
    ]
    with trio.fail_after(LIMIT_S):
        run_id = await deployment.submit(busybox_image, chatty())
        for proxy, part, passed_on in points:
            held = proxy.hold(part, passed_on=passed_on)
            await deployment.start()
            await deployment.kill_at(held)
        await deployment.start()
        run = await deployment.ended_whole(run_id)
    assert run["state"] == "COMPLETED"


async def test_a_worker_killed_while_it_cleans_up_leaves_nothing(
    deployment: Deployment, busybox_image: str
) -> None:
    files = "cd /gyoza; seq 1 20000 | xargs touch"  # they take a while to remove
    with trio.fail_after(LIMIT_S):
        answered = deployment.server.watch_answer_to(COMPLETED)
        run_id = await deployment.submit(busybox_image, chatty(end=files))
        await deployment.start()
        await deployment.kill_at(answered)
        assert list(deployment.directory.iterdir())
        await deployment.start()
        run = await deployment.ended_whole(run_id)
    assert run["state"] == "COMPLETED"
