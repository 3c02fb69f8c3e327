"""An administrator handles gyoza's containers on the engine: each run has a clear end all the same.

Paused, renamed, removed: before the start, while the op runs, and while nobody watches.
"""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import trio

from gyoza.worker.containers.docker_engine import DockerEngine
from gyoza.worker.containers.engine import ContainerSpec
from tests.containers.daemon import daemon
from tests.e2e.conftest import OpenSystem, System, busybox_image, open_system
from tests.e2e.test_restart import deployment
from tests.support.deployment import Deployment

__all__ = ["busybox_image", "deployment", "open_system"]

pytestmark = pytest.mark.docker

LIMIT_S = 200
SAY = """echo ::gyoza::'{"type":"PROGRESS","msg":1}'; """


@pytest.fixture
def docker() -> Generator[httpx.Client]:
    with daemon() as engine:
        yield engine


async def do(docker: httpx.Client, method: str, path: str) -> None:
    """Have the engine do something."""
    answer = await trio.to_thread.run_sync(lambda: docker.request(method, path))
    assert answer.status_code < 300, answer.text


async def running(system: System, image: str, script: str = "sleep 600", **options: Any) -> str:
    """Submit a run and return its id once its op is at work."""
    run_id = await system.run(image, command=["sh", "-c", SAY + script], **options)
    await system.until(run_id, lambda run: run["progress"] == 1)
    return run_id


async def test_a_paused_op_is_cancelled(
    open_system: OpenSystem, busybox_image: str, docker: httpx.Client
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system(grace_s=1) as system:
            run_id = await running(system, busybox_image)
            await do(docker, "POST", f"/containers/gyoza-{run_id}-1/pause")
            await system.client.cancel_run(run_id)
            assert (await system.end_of(run_id))["state"] == "CANCELLED"


async def test_the_time_limit_of_a_paused_op_goes_on(
    open_system: OpenSystem, busybox_image: str, docker: httpx.Client
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system(grace_s=1) as system:
            run_id = await running(system, busybox_image, timeout_s=5)
            await do(docker, "POST", f"/containers/gyoza-{run_id}-1/pause")
            ended = await system.end_of(run_id)
    assert ended["execution_summary"]["reason"] == "TIMED_OUT"


async def test_the_time_limit_of_a_paused_op_goes_on_over_a_restart_of_its_worker(
    deployment: Deployment, busybox_image: str, docker: httpx.Client
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await deployment.submit(
            busybox_image, ["sh", "-c", SAY + "sleep 600"], timeout_s=15, grace_s=1
        )
        await deployment.start()
        await deployment.until(run_id, "PROGRESS")
        await deployment.kill()
        await do(docker, "POST", f"/containers/gyoza-{run_id}-1/pause")
        await deployment.start()
        ended = await deployment.end_of(run_id)
        await deployment.drain()
    assert ended["execution_summary"]["reason"] == "TIMED_OUT"


@pytest.mark.parametrize("handled", ["rename", "rename-and-pause"])
async def test_a_container_that_was_renamed_is_stopped_and_removed(
    open_system: OpenSystem, busybox_image: str, docker: httpx.Client, handled: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system(grace_s=1) as system:
            for script, state in (("sleep 600", "CANCELLED"), ("sleep 1; exit 3", "FAILED")):
                run_id = await running(system, busybox_image, script)
                await do(docker, "POST", f"/containers/gyoza-{run_id}-1/rename?name=own-{run_id}")
                if state == "CANCELLED":
                    if handled == "rename-and-pause":
                        await do(docker, "POST", f"/containers/own-{run_id}/pause")
                    await system.client.cancel_run(run_id)
                assert (await system.end_of(run_id))["state"] == state


@pytest.mark.row("container-gone")
async def test_an_op_whose_container_is_removed_begins_anew(
    open_system: OpenSystem, busybox_image: str, docker: httpx.Client
) -> None:
    script = 'if [ "$GYOZA_ATTEMPT" = 1 ]; then sleep 600; fi'
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            run_id = await running(system, busybox_image, script)
            await do(docker, "DELETE", f"/containers/gyoza-{run_id}-1?force=1")
            ended = await system.end_of(run_id)
    assert (ended["state"], ended["current_attempt"]) == ("COMPLETED", 2)
    assert "CONTAINER_GONE" in str([e["payload"] for e in ended["events"]])


@pytest.mark.row("container-pruned")
async def test_a_container_that_is_pruned_before_its_start_is_created_again(
    open_system: OpenSystem,
    busybox_image: str,
    docker: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The start is held until it is gone."""
    start, pruned = DockerEngine.start, list[str]()

    async def prune_first(self: DockerEngine, container_id: str) -> None:
        if not pruned:
            pruned.append(container_id)
            await do(docker, "DELETE", f"/containers/{container_id}")
        await start(self, container_id)

    monkeypatch.setattr(DockerEngine, "start", prune_first)
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            run_id = await system.run(busybox_image, command=["echo", "here"])
            ended = await system.end_of(run_id)
            log = await system.client.get_logs(run_id)
    assert (ended["state"], ended["current_attempt"], log) == ("COMPLETED", 1, "here\n")
    assert pruned


async def test_a_container_whose_name_is_taken_gets_another(
    open_system: OpenSystem,
    busybox_image: str,
    docker: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create, taken = DockerEngine.create, list[str]()

    async def take_name_first(self: DockerEngine, spec: ContainerSpec) -> str:
        if not taken:
            taken.append(spec.name)
            other = replace(spec, labels={}, volumes={})
            await create(self, other)
        return await create(self, spec)

    monkeypatch.setattr(DockerEngine, "create", take_name_first)
    try:
        with trio.fail_after(LIMIT_S):
            async with open_system() as system:
                run_id = await system.run(busybox_image, command=["true"])
                assert (await system.end_of(run_id))["state"] == "COMPLETED"
    finally:
        with trio.move_on_after(LIMIT_S, shield=True):
            await do(docker, "DELETE", f"/containers/{taken[0]}")
