"""An op looks for other ops on the network."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trio

from gyoza.worker.containers import docker_engine, docker_network
from gyoza.worker.containers.docker_engine import DockerEngine, open_docker_engine
from gyoza.worker.containers.docker_network import OwnNetwork
from gyoza.worker.containers.docker_threads import DockerThreads
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.errors import ContainerNotFound
from gyoza.worker.policy import ContainerPolicy
from tests.containers.daemon import daemon
from tests.e2e.conftest import OpenSystem, busybox_image, open_system, python_image

__all__ = ["busybox_image", "open_system", "python_image"]

pytestmark = pytest.mark.docker

LIMIT_S = 200
SERVES = """
import json, socket
server = socket.create_server(("0.0.0.0", 7777))
address = socket.gethostbyname(socket.gethostname())
print("::gyoza::" + json.dumps({"type": "INFO", "msg": address}), flush=True)
while True:
    server.accept()
"""
VISITS = """
import json, os, socket, sys
try:
    socket.create_connection((sys.argv[1], 7777), timeout=3)
    found = "reached"
except OSError:
    found = "not reached"
json.dump({"found": found}, open(os.environ["GYOZA_OUTPUT_PATH"], "w"))
"""


@pytest.fixture
def docker() -> Generator[httpx.Client]:
    with daemon() as engine:
        yield engine


@pytest.mark.parametrize(
    ("network", "found"), [(None, "not reached"), ("bridge", "reached")], ids=["own", "bridge"]
)
async def test_an_op_that_visits_another(
    open_system: OpenSystem, python_image: str, network: str | None, found: str
) -> None:
    """On the network that ops have by default it fails; on Docker's own it shows that it could."""
    policy = ContainerPolicy(network=network) if network else ContainerPolicy()
    with trio.fail_after(LIMIT_S):
        async with open_system(policy=policy, grace_s=0) as system:
            serves = await system.run(python_image, command=["python", "-c", SERVES])
            run = await system.until(serves, lambda run: bool(addresses(run)))
            [address] = addresses(run)
            visits = ["python", "-c", VISITS, address]
            ended = await system.end_of(await system.run(python_image, command=visits))
            await system.client.cancel_run(serves)
    assert ended["outputs"] == {"found": found}


def addresses(run: dict[str, Any]) -> list[str]:
    """Return the addresses that the op of a run has told."""
    told = [event["msg"] for event in run["events"] if event["type"] == "INFO"]
    return [msg for msg in told if msg.count(".") == 3]


@pytest.fixture
def network(docker: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    """Let the network have another name, since other tests use the engine, too."""
    name = f"gyoza-test-{uuid4().hex}"
    for module in (docker_engine, docker_network):
        monkeypatch.setattr(module, "OWN_NETWORK", name)
    monkeypatch.setattr(docker_network, "INTERFACE", f"gy{uuid4().hex[:6]}-")
    yield name
    docker.delete(f"/networks/{name}")


def networks(docker: httpx.Client, name: str) -> list[dict[str, Any]]:
    """Return the networks of that name."""
    found: list[dict[str, Any]] = docker.get("/networks").json()
    return [network for network in found if network["Name"] == name]


@asynccontextmanager
async def created(engine: DockerEngine, image: str, network: str) -> AsyncGenerator[str]:
    """Create a container in the network and remove it at the end."""
    name = f"gyoza-test-{uuid4().hex}"
    spec = ContainerSpec(name=name, image=image, command=["true"], network=network)
    container_id = await engine.create(spec)
    try:
        yield container_id
    finally:
        with trio.move_on_after(30, shield=True):
            await engine.remove(container_id)


async def test_a_network_that_was_removed_is_made_again(
    busybox_image: str, network: str, docker: httpx.Client
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_docker_engine() as engine:
            async with created(engine, busybox_image, network) as first:
                [made] = await trio.to_thread.run_sync(networks, docker, network)
                assert made["Labels"] == {"gyoza.network": "own"}
                await trio.to_thread.run_sync(docker.delete, f"/networks/{network}")
                with pytest.raises(ContainerNotFound):
                    await engine.start(first)
            async with created(engine, busybox_image, network) as second:
                await engine.start(second)
                assert (await engine.wait(second)).exit_code == 0


async def test_workers_that_need_the_network_at_the_same_time_make_one(
    network: str, docker: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def look() -> None:
        names.append(await OwnNetwork(DockerThreads(1, 30)).name())

    names: list[str] = []
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(look)
        assert names == [network] * 8
        assert len(await trio.to_thread.run_sync(networks, docker, network)) == 1
    assert not caplog.records


async def test_an_engine_that_refuses_the_network_runs_ops_in_its_own_and_the_log_says_so(
    network: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(docker_network, "LABELS", {"not": 1})
    with trio.fail_after(LIMIT_S):
        assert await OwnNetwork(DockerThreads(1, 30)).name() == "bridge"
    [warning] = caplog.messages
    assert "An op can reach what other ops listen on" in warning
