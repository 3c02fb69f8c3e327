"""What is wrong with a worker or its engine fails no run: it is said, or the run given back."""

from typing import Any

import pytest
import trio

from gyoza.models import ReleaseReason
from gyoza.testing import FakeContainerEngine
from gyoza.worker.containers.engine import EngineInfo
from gyoza.worker.errors import (
    EngineError,
    EngineFailed,
    RegistryUnavailable,
    SettingsError,
    WorkerError,
)
from gyoza.worker.execution_pipeline.engine_faults import MOST, REMEMBERED, EngineFaults
from gyoza.worker.policy import ContainerPolicy
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.lacking import RUN, complete, short_backoff, succeed

__all__ = ["short_backoff"]

OVERLAY = "The Docker Engine failed: error creating overlay mount: invalid argument."


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"network": "absent"}, "has no network absent, which the setting network names"),
        ({"runtime": "runsc"}, "has no runtime runsc, which the setting runtime names; it has f"),
        ({"max_cpu": 1001}, "The setting max_cpu is 1001; the Docker Engine has 1000 CPUs."),
    ],
)
async def test_a_worker_whose_engine_lacks_what_its_settings_name_does_not_start(
    policy: dict[str, Any], sentence: str, server: SmallServer, start_worker: StartWorker
) -> None:
    with trio.fail_after(200), pytest.RaisesGroup(SettingsError, flatten_subgroups=True) as caught:
        async with start_worker(policy=ContainerPolicy(**policy)):
            pass
    assert sentence in str(caught.value.exceptions[0])
    assert not server.claims


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        (EngineInfo("fake", "/", has_init=False), "has no docker-init"),
        (EngineInfo("fake", "/", log_drivers=("journald",)), "has no log driver local"),
    ],
)
async def test_a_worker_whose_engine_lacks_what_all_containers_need_does_not_start(
    description: EngineInfo,
    sentence: str,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    engine.description = description
    with trio.fail_after(200), pytest.RaisesGroup(EngineFailed, flatten_subgroups=True) as caught:
        async with start_worker():
            pass
    assert sentence in str(caught.value.exceptions[0])
    assert not server.claims


async def test_a_runtime_by_its_name_in_containerd_is_the_engines_to_know(
    start_worker: StartWorker,
) -> None:
    with trio.fail_after(200):
        async with start_worker(policy=ContainerPolicy(runtime="io.containerd.runsc.v1")):
            pass


def test_an_id_of_a_user_that_no_engine_takes_is_refused_with_the_settings() -> None:
    ContainerPolicy(user="65534:2147483647")
    with pytest.raises(SettingsError, match="setting user"):
        ContainerPolicy(user="1:2147483648")


@pytest.mark.parametrize("method", ["find_image", "create", "attach", "start"])
async def test_a_run_at_which_the_engine_fails_is_given_back_and_completes_later(
    method: str, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick", succeed)
    engine.failures[method] = EngineFailed(OVERLAY)
    await complete(server, start_worker)
    assert [r["reason"] for r in server.releases] == [ReleaseReason.ENGINE_FAILED]
    assert "FAILED" not in server.told
    assert not engine.containers
    assert "unavailable" in [beat["engine"] for beat in server.heartbeats]


class Broken:
    """Lets the engine fail at the start of some images' containers, or of all."""

    def __init__(self, engine: FakeContainerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = {"one"}
        self.times = 0
        self.error: WorkerError = EngineFailed(OVERLAY)
        self._engine = engine
        self._start = engine.start
        monkeypatch.setattr(engine, "start", self)

    async def __call__(self, container_id: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._engine.containers[container_id].spec.image in self.images:
            self.times += 1
            raise self.error
        await self._start(container_id)


@pytest.fixture
def broken(engine: FakeContainerEngine, monkeypatch: pytest.MonkeyPatch) -> Broken:
    engine.add_image("one", succeed)
    return Broken(engine, monkeypatch)


def test_an_engine_that_fails_at_several_runs_in_a_row_is_at_fault_however_often() -> None:
    faults = EngineFaults()
    assert all(faults.meet(run) for _ in range(3 * MOST) for run in ("run-1", "run-2"))
    faults.end("run-1")
    assert faults.meet("run-1")


def test_a_run_at_which_the_engine_fails_while_it_starts_others_is_at_fault() -> None:
    faults = EngineFaults()
    for _ in range(MOST - 1):
        assert faults.meet("bad")
        faults.end("good")
    assert not faults.meet("bad")


async def test_a_run_at_which_alone_the_engine_fails_again_and_again_fails_at_last(
    server: SmallServer, start_worker: StartWorker, broken: Broken
) -> None:
    server.takes_back = True
    with trio.fail_after(200):
        async with start_worker() as worker:
            server.submit("bad", "one")
            failed = await server.wait_for_event("FAILED", "bad")
            await end_of(worker, "bad")
    assert failed["payload"]["reason"] == "ENGINE"
    assert failed["msg"] == OVERLAY
    assert broken.times == MOST


async def test_what_is_the_ops_own_fault_fails_it_at_once(
    server: SmallServer, start_worker: StartWorker, broken: Broken
) -> None:
    broken.error = EngineError("The Docker Engine refused: unable to find user me.")
    server.submit(RUN, "one")
    with trio.fail_after(200):
        async with start_worker() as worker:
            failed = await server.wait_for_event("FAILED", RUN)
            await end_of(worker, RUN)
    assert failed["payload"]["reason"] == "ENGINE"
    assert broken.times == 1


async def test_a_user_of_the_workers_settings_that_an_image_does_not_have_is_not_the_ops_fault(
    server: SmallServer, start_worker: StartWorker, broken: Broken
) -> None:
    broken.error = EngineError("The Docker Engine refused: unable to find user me.")
    server.takes_back = True
    with trio.fail_after(200):
        async with start_worker(policy=ContainerPolicy(user="me")) as worker:
            server.submit(RUN, "one")
            await server.wait_until(lambda: len(server.releases) > 2)
            broken.images.clear()
            await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert "FAILED" not in server.told


async def test_a_cancel_acts_at_once_while_a_registry_is_waited_for(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def pull(image: str, on_progress: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RegistryUnavailable(f"Cannot pull {image}: connection refused.")

    monkeypatch.setattr(engine, "pull", pull)
    server.submit(RUN, "absent")
    with trio.fail_after(200):
        async with start_worker() as worker:
            told = await server.wait_for_event("INFO", RUN)
            server.cancel(RUN)
            await end_of(worker, RUN)
    assert told["msg"] == "Cannot pull absent: connection refused. Retrying."
    assert "FAILED" not in server.told


def test_only_so_many_runs_are_remembered() -> None:
    faults = EngineFaults()
    for number in range(2 * REMEMBERED):
        assert faults.meet(f"run-{number}")
        faults.end("other")
    assert len(faults._times) == REMEMBERED  # pyright: ignore[reportPrivateUsage]
