"""Cancels and time limits on a real engine: from each phase nothing is left, and nobody failed."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
import trio

from gyoza.worker.containers.docker_engine import DockerEngine, open_docker_engine
from gyoza.worker.containers.labels import of_worker
from tests.containers.proxy import Proxy
from tests.containers.test_docker_pull import image_to_pull, registry, stuck_registry
from tests.e2e.conftest import OpenSystem, System

__all__ = ["image_to_pull", "registry", "stuck_registry"]

pytestmark = pytest.mark.docker

LIMIT_S = 200
READY = 'echo ::gyoza::\'{"type":"PROGRESS","msg":1}\'; '
POLITE = (
    "trap 'echo asked; until [ -e /gyoza/go ]; do sleep 0.05; done; echo bye; exit 0' TERM; "
    + READY
    + "while :; do sleep 0.05; done"
)
DEAF = "trap '' TERM; " + READY + "sleep 600"
SLEEPER = READY + "exec sleep 600"


@pytest.fixture
async def docker_engine() -> AsyncGenerator[DockerEngine]:
    """The real engine, to be looked at past the worker."""
    async with open_docker_engine() as engine:
        yield engine


async def states_of(system: System, engine: DockerEngine) -> list[str]:
    """Return the states of the worker's containers, as the engine lists them."""
    found = await engine.list(of_worker(system.worker.settings.worker_id))
    return [container.state for container in found]


async def begun(system: System, image: str, script: str, **options: Any) -> str:
    """Submit a run, and return its id once its script has set up what it does with signals."""
    run_id = await system.run(image, command=["sh", "-c", script], **options)
    await system.until(run_id, lambda run: run["progress"] == 1)
    return run_id


async def assert_cancelled_and_gone(system: System, engine: DockerEngine, run_id: str) -> None:
    """Check run, container, directory and slot."""
    run = await system.client.get_run(run_id)
    assert run["state"] == "CANCELLED"
    assert "FAILED" not in [event["type"] for event in run["events"]]
    assert await states_of(system, engine) == []
    assert not list(system.worker.settings.work_dir.iterdir())
    assert system.worker.active.free_slots == system.worker.settings.max_concurrency


@pytest.mark.row("cancel-running")
async def test_a_run_that_heeds_the_signal_has_its_last_words_in_the_log(
    open_system: OpenSystem, docker_engine: DockerEngine, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system(grace_s=600) as system:
            run_id = await begun(system, busybox_image, POLITE)
            assert await states_of(system, docker_engine) == ["running"]
            await system.client.cancel_run(run_id)
            assert (await system.client.get_run(run_id))["state"] == "CANCELLED"
            assert await states_of(system, docker_engine) == ["running"]
            assert system.worker.active.ids == [run_id]
            [directory] = system.worker.settings.work_dir.iterdir()
            await trio.Path(directory / "gyoza" / "go").touch()
            await system.worker.active.wait_until_gone(run_id)
            await assert_cancelled_and_gone(system, docker_engine, run_id)
            assert await system.client.get_logs(run_id) == "asked\nbye\n"


@pytest.mark.row("cancel-ignored")
async def test_a_run_that_ignores_the_signal_is_killed_after_its_own_grace_period(
    open_system: OpenSystem, docker_engine: DockerEngine, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system(grace_s=600) as system:
            run_id = await begun(system, busybox_image, DEAF, grace_s=0.3)
            await system.client.cancel_run(run_id)
            await system.worker.active.wait_until_gone(run_id)
            await assert_cancelled_and_gone(system, docker_engine, run_id)


@pytest.mark.row("timeout-running")
@pytest.mark.parametrize("script", [SLEEPER, DEAF], ids=["heeded", "ignored"])
async def test_a_time_limit_ends_a_run_whether_it_heeds_the_signal_or_not(
    script: str, open_system: OpenSystem, docker_engine: DockerEngine, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system(grace_s=600) as system:
            run_id = await begun(system, busybox_image, script, timeout_s=1, grace_s=0.3)
            run = await system.end_of(run_id)
            await system.worker.active.wait_until_gone(run_id)
            assert await states_of(system, docker_engine) == []
    assert (run["state"], run["execution_summary"]["reason"]) == ("FAILED", "TIMED_OUT")


@pytest.mark.row("cancel-pulling")
async def test_a_cancel_while_the_registry_is_stuck_ends_the_pull(
    open_system: OpenSystem,
    docker_engine: DockerEngine,
    image_to_pull: str,
    stuck_registry: Proxy,
) -> None:
    host, _, rest = image_to_pull.partition("/")
    image = f"{host.partition(':')[0]}:{stuck_registry.port}/{rest}"
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            run_id = await system.run(image)
            await stuck_registry.frozen.wait()
            await system.client.cancel_run(run_id)
            await system.worker.active.wait_until_gone(run_id)
            await assert_cancelled_and_gone(system, docker_engine, run_id)
            assert await docker_engine.find_image(image) is None
            stuck_registry.freeze_after = None
            stuck_registry.break_all()
            again = await system.run(image, command=["true"])  # a pull of its own
            run = await system.end_of(again)
            await system.worker.active.wait_until_gone(again)
        await docker_engine.remove_image(image)
    assert run["state"] == "COMPLETED"


async def for_all(function: Callable[[str], Awaitable[object]], run_ids: list[str]) -> None:
    """Call it for all runs at once."""
    async with trio.open_nursery() as nursery:
        for run_id in run_ids:
            nursery.start_soon(function, run_id)


@pytest.mark.row("cancel-running", "cancel-ignored")
async def test_a_hundred_runs_cancelled_at_once_are_all_gone(
    open_system: OpenSystem, docker_engine: DockerEngine, busybox_image: str
) -> None:
    with trio.fail_after(280):
        async with open_system(max_concurrency=100, grace_s=1) as system:
            run_ids = [
                await system.run(busybox_image, command=["sh", "-c", script])
                for script in [SLEEPER, DEAF] * 50
            ]
            for run_id in run_ids:
                await system.until(run_id, lambda run: run["progress"] == 1)
            assert await states_of(system, docker_engine) == ["running"] * 100
            assert system.worker.active.free_slots == 0
            await for_all(system.client.cancel_run, run_ids)
            await for_all(system.worker.active.wait_until_gone, run_ids)
            for run_id in run_ids:
                await assert_cancelled_and_gone(system, docker_engine, run_id)
