"""Nobody gets a GPU that was not given: not by the environment, the image, labels or a race."""

from collections.abc import AsyncGenerator, Generator
from typing import Any
from uuid import uuid4

import pytest
import trio

from gyoza.models import OpRun
from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker import backoff
from gyoza.worker.containers import gpus as gpu_pool
from gyoza.worker.containers.docker_engine import DockerEngine, open_docker_engine
from gyoza.worker.containers.docker_requests import container_body
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.containers.gpus import devices_in_use
from gyoza.worker.containers.labels import ContainerIdentity, of_gpus
from gyoza.worker.run_record import RunRecord
from gyoza.worker.runner import orphan_sweep
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import GPU
from gyoza.worker.worker_context.types import NamedGPU
from tests.containers.daemon import daemon, inspect
from tests.images import busybox_image
from tests.support.small_server import SmallServer
from tests.worker.conftest import (
    StartWorker,
    end_of,
    server,
    settings,
    short_periods,
    start_worker,
)
from tests.worker.programs import sleep_for_ever

__all__ = ["busybox_image", "server", "settings", "short_periods", "start_worker"]

UUID = "GPU-5a1b8e0c-0000-4000-8000-000000000001"
OTHER = "GPU-5a1b8e0c-0000-4000-8000-000000000002"
CARD = NamedGPU(0, 100, ["cuda"], UUID)
NEED: dict[str, Any] = {"constraints": {"vram_mb": 10}}

# Everything by which a run could ask a container runtime for devices.
GREEDY = {
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_VISIBLE_DEVICES=all,": "",
    "NVIDIA_MIG_CONFIG_DEVICES": "all",
    "NVIDIA_MIG_MONITOR_DEVICES": "all",
    "NVIDIA_IMEX_CHANNELS": "0",
    "NVIDIA_MOFED": "enabled",
    "NVIDIA_GDS": "enabled",
    "NVIDIA_GDRCOPY": "enabled",
    "NVIDIA_NVSWITCH": "enabled",
    "AMD_VISIBLE_DEVICES": "all",
    "ASCEND_VISIBLE_DEVICES": "0-7",
    "HABANA_VISIBLE_DEVICES": "all",
}
# What no runtime reads, or what can only narrow.
HARMLESS = {
    "nvidia_visible_devices": "all",
    "CUDA_VISIBLE_DEVICES": "0,1",
    "HIP_VISIBLE_DEVICES": "0",
    "ROCR_VISIBLE_DEVICES": "0",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    "NVIDIA_TF32_OVERRIDE": "0",
}
VOID = {f"{name}=void" for name in GREEDY if name.startswith("NVIDIA_") and "VISIBLE" not in name}


def body_of(**fields: Any) -> dict[str, Any]:
    return container_body(ContainerSpec(name="x", image="y", **fields))


def test_a_run_without_gpus_that_asks_for_all_by_its_environment() -> None:
    body = body_of(env=GREEDY | HARMLESS)
    assert set(body["Env"]) == {f"{n}={v}" for n, v in HARMLESS.items()} | {
        "NVIDIA_VISIBLE_DEVICES=void"
    }
    assert "DeviceRequests" not in body["HostConfig"]


def test_a_run_with_gpus_that_asks_for_others_and_for_more_than_gpus() -> None:
    body = body_of(env=GREEDY | HARMLESS, gpus=[UUID, OTHER])
    assert (
        set(body["Env"])
        == {f"{n}={v}" for n, v in HARMLESS.items()}
        | {f"NVIDIA_VISIBLE_DEVICES={UUID},{OTHER}"}
        | VOID
    )
    assert len(body["Env"]) == len(HARMLESS) + 1 + 7
    assert body["HostConfig"]["DeviceRequests"] == [
        {"Driver": "", "Count": 0, "DeviceIDs": [UUID, OTHER], "Capabilities": [["gpu"]]}
    ]


@pytest.fixture
async def docker_engine() -> AsyncGenerator[DockerEngine]:
    async with open_docker_engine() as docker:
        yield docker


@pytest.fixture
def greedy_image(busybox_image: str) -> Generator[str]:
    """An image that asks for all GPUs, and pretends that its containers hold them."""
    name = f"gyoza-test-greedy-{uuid4().hex}"
    changes = ["ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_MOFED=enabled", f"LABEL gyoza.gpus={UUID}"]
    with daemon() as client:
        created = client.post("/containers/create", json={"Image": busybox_image}).json()["Id"]
        try:
            answer = client.post(
                "/commit",
                params={"container": created, "repo": name, "changes": "\n".join(changes)},
            )
            assert answer.status_code == 201, answer.text
            yield f"{name}:latest"
        finally:
            client.delete(f"/containers/{created}", params={"force": True})
            client.delete(f"/images/{name}")


@pytest.mark.docker
@pytest.mark.parametrize(("gpus", "visible"), [([], "void"), ([OTHER], OTHER)])
async def test_an_image_that_asks_for_all_gpus_and_pretends_to_hold_one(
    gpus: list[str], visible: str, docker_engine: DockerEngine, greedy_image: str
) -> None:
    identity = ContainerIdentity(f"test-{uuid4().hex}", uuid4().hex, 1)
    spec = ContainerSpec(
        name=identity.name, image=greedy_image, labels=identity.labels | of_gpus(gpus), gpus=gpus
    )
    with trio.fail_after(200):
        container_id = await docker_engine.create(spec)
        try:
            env = inspect(container_id)["Config"]["Env"]
            in_use = await devices_in_use(docker_engine)
        finally:
            with trio.move_on_after(30, shield=True):
                await docker_engine.remove(container_id)
    values = [v for name, _, v in (e.partition("=") for e in env) if name.endswith("_DEVICES")]
    assert values[0] == visible
    assert set(values[1:]) <= {"void"}
    assert ("NVIDIA_MOFED=void" if gpus else "NVIDIA_MOFED=enabled") in env  # read with a GPU only
    assert in_use.intersection([UUID, OTHER]) == set(gpus)


@pytest.mark.docker
async def test_the_engine_tells_whose_gpus_are_held_until_a_container_has_ended(
    docker_engine: DockerEngine, busybox_image: str
) -> None:
    held = f"GPU-{uuid4()}"

    def spec() -> ContainerSpec:
        identity = ContainerIdentity("another-worker", uuid4().hex, 1)
        return ContainerSpec(
            name=identity.name,
            image=busybox_image,
            command=["true"],
            labels=identity.labels | of_gpus([held, "GPU-x"]),
        )

    with trio.fail_after(200):
        created = await docker_engine.create(spec())
        try:
            assert held in await devices_in_use(docker_engine)
            assert held not in await devices_in_use(docker_engine, but=created)
            await docker_engine.start(created)
            await docker_engine.wait(created)
            assert held not in await devices_in_use(docker_engine)
        finally:
            with trio.move_on_after(30, shield=True):
                await docker_engine.remove(created)


class RacingEngine(FakeContainerEngine):
    """A fake engine on which the first two containers are created at the same time."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.together = 0
        self._creating = 0
        self._both = trio.Event()

    async def create(self, spec: ContainerSpec) -> str:
        """See `ContainerEngine.create`."""
        self._creating += 1
        if self._creating <= self.together:
            if self._creating == self.together:
                self._both.set()
            await self._both.wait()
        return await super().create(spec)


@pytest.fixture
async def engine() -> AsyncGenerator[RacingEngine]:
    async with trio.open_nursery() as nursery:
        yield RacingEngine(nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let looks for GPUs come soon after one another."""
    monkeypatch.setattr(gpu_pool, "LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr(backoff, "FIRST_S", 0.02)
    monkeypatch.setattr(orphan_sweep, "FIRST_S", 0.1)
    monkeypatch.setattr(orphan_sweep, "PERIOD_S", 0.1)


class Exclusive:
    """A program that notices when two of its containers have the same GPU at a time."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.clashes = 0
        self.shown: list[str] = []

    async def __call__(self, container: FakeContainer) -> int:
        [gpu] = container.spec.gpus
        self.clashes += gpu in self.running
        self.running.append(gpu)
        self.shown.append(gpu)
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        self.running.remove(gpu)
        return 0


async def test_two_workers_that_choose_the_same_gpu_at_the_same_time(
    server: SmallServer, engine: RacingEngine, start_worker: StartWorker
) -> None:
    program = Exclusive()
    engine.add_image("exclusive", program)
    engine.together = 2
    for run in ("run-1", "run-2"):
        server.submit(run, "exclusive", **NEED)
    with trio.fail_after(200):
        async with (
            start_worker(gpus=[CARD], max_concurrency=1) as one,
            start_worker(gpus=[CARD], max_concurrency=1, worker_id="w2") as two,
        ):
            await server.wait_for_event("COMPLETED", "run-1")
            await server.wait_for_event("COMPLETED", "run-2")
            for worker in (one, two):
                for run in list(worker.active.ids):
                    await end_of(worker, run)
    assert (program.clashes, program.shown) == (0, [UUID, UUID])
    assert len([call for call, _ in engine.calls if call == "create"]) > 2  # somebody gave way
    assert server.told.count("FAILED") == 0
    assert not engine.containers


async def test_another_worker_s_container_keeps_its_gpu_and_the_free_one_is_taken(
    server: SmallServer, engine: RacingEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    engine.add_image("exclusive", program := Exclusive())
    theirs = ContainerIdentity("another", "run-of-another", 1)
    engine.leave_behind(
        ContainerSpec(name=theirs.name, image="sleeper", labels=theirs.labels | of_gpus([UUID]))
    )
    server.submit("run-1", "exclusive", **NEED)
    with trio.fail_after(200):
        async with start_worker(gpus=[CARD, NamedGPU(1, 200, ["cuda"], OTHER)]) as worker:
            completed = await server.wait_for_event("COMPLETED", "run-1")
            await end_of(worker, "run-1")
    assert program.shown == [OTHER]
    assert completed["summary"]["gpu_ids"] == [1]


@pytest.mark.parametrize("state", ["running", "created"])
async def test_a_container_whose_record_is_lost_keeps_its_gpu_until_it_is_gone(
    state: str, server: SmallServer, engine: RacingEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    engine.add_image("exclusive", program := Exclusive())
    lost = ContainerIdentity("w1", "run-lost", 1)
    engine.leave_behind(
        ContainerSpec(name=lost.name, image="sleeper", labels=lost.labels | of_gpus([UUID])), state
    )
    server.submit("run-1", "exclusive", **NEED)
    with trio.fail_after(200):
        async with start_worker(gpus=[CARD]) as worker:
            await server.wait_for_event("COMPLETED", "run-1")
            await end_of(worker, "run-1")
    calls = [call for call in engine.calls if call[0] in ("create", "remove")]
    assert calls[:2] == [("remove", lost.name), ("create", "gyoza-run-1-1")]
    assert program.shown == [UUID]


@pytest.mark.parametrize("state", ["running", "created"])
async def test_a_run_s_own_container_of_which_no_start_is_recorded_does_not_block_it(
    state: str,
    server: SmallServer,
    engine: RacingEngine,
    settings: WorkerSettings,
    start_worker: StartWorker,
) -> None:
    engine.add_image("exclusive", program := Exclusive())
    server.submit("run-1", "exclusive", state="RUNNING", **NEED)
    server.take("run-1")
    run = OpRun.from_dict(server.runs["run-1"])
    RunRecord.create(settings.work_dir / settings.worker_id / "run-1.1", run).close()
    own = ContainerIdentity("w1", "run-1", 1)
    engine.add_image("sleeper", sleep_for_ever)
    engine.leave_behind(
        ContainerSpec(name=own.name, image="sleeper", labels=own.labels | of_gpus([UUID])), state
    )
    with trio.fail_after(200):
        async with start_worker(gpus=[CARD]) as worker:
            await server.wait_for_event("COMPLETED", "run-1")
            await end_of(worker, "run-1")
    assert program.shown == [UUID]
    assert not engine.containers


async def test_gpus_are_waited_for_while_the_engine_is_away(
    server: SmallServer, engine: RacingEngine, start_worker: StartWorker
) -> None:
    engine.add_image("exclusive", program := Exclusive())
    server.submit("run-1", "exclusive", **NEED)
    with trio.fail_after(200):
        async with start_worker(gpus=[GPU(0, 100)]) as worker:
            with engine.hold("list") as looking:
                await looking.reached.wait()
                engine.unavailable = True
            engine.unavailable = False
            await server.wait_for_event("COMPLETED", "run-1")
            await end_of(worker, "run-1")
    assert program.shown == ["0"]  # a driver without UUIDs


async def test_a_container_is_labelled_with_its_gpus_and_one_without_with_none(
    server: SmallServer, engine: RacingEngine, start_worker: StartWorker
) -> None:
    labels: dict[str, str] = {}

    async def note_labels(container: FakeContainer) -> int:
        labels[container.spec.name] = container.spec.labels["gyoza.gpus"]
        return 0

    engine.add_image("noter", note_labels)
    server.submit("run-1", "noter", constraints={"vram_mb": 150})
    server.submit("run-2", "noter", env_vars={"NVIDIA_VISIBLE_DEVICES": "all"})
    with trio.fail_after(200):
        async with start_worker(gpus=[CARD, NamedGPU(1, 100, ["cuda"], OTHER)]) as worker:
            for run in ("run-1", "run-2"):
                await server.wait_for_event("COMPLETED", run)
                await end_of(worker, run)
    assert labels == {"gyoza-run-1-1": f"{UUID},{OTHER}", "gyoza-run-2-1": ""}
