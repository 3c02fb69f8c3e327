"""The sweep removes what nobody attends to, and nothing else."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.client import AsyncGyozaClient
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.containers.labels import WORKER_ID, ContainerIdentity, server_name
from gyoza.worker.errors import EngineError, EngineUnavailable
from gyoza.worker.runner import orphan_sweep
from gyoza.worker.runner.orphan_sweep import OrphanSweep
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker
from tests.worker.programs import sleep_for_ever

RESOURCES: dict[str, Any] = {"cpu_cores": 1, "ram_mb": 1024, "gpus": []}
Put = Callable[[ContainerIdentity], Awaitable[None]]


@pytest.fixture
def lease_s() -> float:
    return 60.0


@pytest.fixture
async def url(tmp_path: Path, lease_s: float) -> AsyncGenerator[str]:
    settings = ServerSettings(
        port=0, database_url=f"sqlite:///{tmp_path}/s.sqlite3", api_key="key", lease_s=lease_s
    )
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve, settings)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def client(url: str) -> AsyncGenerator[AsyncGyozaClient]:
    async with AsyncGyozaClient(url, "key") as client:
        yield client


@pytest.fixture
def put(engine: FakeContainerEngine) -> Put:
    """Start a container that no task of the worker attends to, an hour old."""
    engine.add_image("sleeper", sleep_for_ever)

    async def put_it(identity: ContainerIdentity) -> None:
        spec = ContainerSpec(name=identity.name, image="sleeper", labels=identity.labels)
        container_id = await engine.create(spec)
        await engine.start(container_id)
        engine.containers[container_id].created_at = datetime.now(UTC) - timedelta(hours=1)

    return put_it


def names(engine: FakeContainerEngine) -> set[str]:
    return {container.spec.name for container in engine.containers.values()}


async def other_worker(client: AsyncGyozaClient, *, lost: bool) -> dict[str, Any]:
    """Let the worker w2 claim a run and come or not come back; return the run."""
    run = await client.create_run("sleeper", {}, tags=["of-w2"])
    await client.heartbeat("w2", RESOURCES, ["of-w2"])
    [claimed] = await client.claim("w2", wait_s=10)
    while lost and (await client.get_worker("w2"))["state"] != "lost":
        await client.get_run(run["id"])
    return claimed


async def test_own_containers_without_a_run_go_at_the_second_pass(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker, put: Put
) -> None:
    begun = trio.Event()

    async def begin_and_sleep(container: FakeContainer) -> int:
        begun.set()
        return await sleep_for_ever(container)

    engine.add_image("attended", begin_and_sleep)
    server.submit("run-1", "attended")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await begun.wait()
            await put(ContainerIdentity("w1", "run-1", 7, worker.server))
            await put(ContainerIdentity("w1", "run-0", 1))
            await put(ContainerIdentity("w1", "run-9", 1, "http://elsewhere:80"))
            sweep = OrphanSweep(worker)
            await sweep.look()
            assert len(engine.containers) == 4
            await sweep.look()
            assert names(engine) == {"gyoza-run-1-1", "gyoza-run-9-1"}
            await sweep.look()
            assert "gyoza-run-1-1" in names(engine)
            server.cancel("run-1")
            await worker.active.wait_until_gone("run-1")


@pytest.mark.row("killed-for-good")
@pytest.mark.parametrize("lease_s", [0.3])
async def test_a_lost_workers_container_goes_once_the_server_has_given_its_run_away(
    url: str,
    client: AsyncGyozaClient,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    put: Put,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(200):
        async with start_worker(server_url=url, heartbeat_s=0.05) as worker:
            run = await other_worker(client, lost=True)
            await put(ContainerIdentity("w2", run["id"], run["current_attempt"], worker.server))
            while (await client.get_run(run["id"]))["state"] == "ASSIGNED":
                await client.health()
            await OrphanSweep(worker, grace_s=0).look()
            assert not engine.containers
    assert f"gyoza-{run['id']}-1 of worker w2 is removed" in caplog.text


async def test_a_container_whose_run_the_server_still_has_there_stays(
    url: str,
    client: AsyncGyozaClient,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    put: Put,
) -> None:
    with trio.fail_after(200):
        async with start_worker(server_url=url, heartbeat_s=0.05) as worker:
            run = await other_worker(client, lost=False)
            held = ContainerIdentity("w2", run["id"], run["current_attempt"], worker.server)
            stale = ContainerIdentity("w2", run["id"], 9, worker.server)
            cancelled = await client.create_run("sleeper", {}, tags=["nowhere"])
            await client.cancel_run(cancelled["id"])
            ending = ContainerIdentity("w2", cancelled["id"], 1, worker.server)
            for identity in (held, stale, ending):
                await put(identity)
            # w2 is there: what it has to end it ends by itself, within its grace period.
            await beating(client, run["id"])
            await OrphanSweep(worker, grace_s=0).look()
            assert len(engine.containers) == 3


async def beating(client: AsyncGyozaClient, run_id: str) -> None:
    await client.heartbeat("w2", RESOURCES, ["of-w2"], [{"id": run_id, "image": "sleeper"}])


async def test_what_is_young_foreign_or_a_scripts_is_not_asked_about(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker, put: Put
) -> None:
    with trio.fail_after(200):
        async with start_worker() as worker:
            await put(ContainerIdentity("w2", "run-1", 1, worker.server))
            for container in engine.containers.values():
                container.created_at = datetime.now(UTC) - timedelta(seconds=90)
            await put(ContainerIdentity("w2", "run-2", 1, "http://elsewhere:80"))
            await put(ContainerIdentity("script-1", "run-3", 1))
            odd = ContainerSpec(name="odd", image="sleeper", labels={"gyoza.worker_id": "w2"})
            await engine.create(odd)
            sweep = OrphanSweep(worker)
            await sweep.look()
            await sweep.look()
            assert len(engine.containers) == 4
            assert not [request for request in server.requests if request.startswith("GET /runs")]


async def test_with_a_small_server_unknown_runs_of_unknown_workers_go(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker, put: Put
) -> None:
    server.submit("run-1", "sleeper", state="RUNNING", tags=["held"])
    server.submit("run-2", "sleeper", state="COMPLETED")
    server.take("run-1", "run-2")
    with trio.fail_after(200):
        async with start_worker() as worker:
            for run_id in ("run-1", "run-2", "run-3"):
                await put(ContainerIdentity("w2", run_id, 1, worker.server))
            await OrphanSweep(worker).look()
            assert names(engine) == {"gyoza-run-1-1"}


@pytest.mark.parametrize("path", ["/runs/run-2", "/workers/w2"])
async def test_while_the_server_cannot_be_asked_nothing_of_others_is_touched(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    put: Put,
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.refuse("GET", path, 403, "Not now.")
    with trio.fail_after(200), caplog.at_level(logging.INFO):
        async with start_worker() as worker:
            await put(ContainerIdentity("w2", "run-2", 1, worker.server))
            await OrphanSweep(worker).look()
            assert names(engine) == {"gyoza-run-2-1"}
    assert "cannot be told: Not now." in caplog.text


async def test_a_container_that_cannot_be_removed_does_not_keep_the_others(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    put: Put,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(200):
        async with start_worker() as worker:
            for run_id in ("run-1", "run-2"):
                await put(ContainerIdentity("w2", run_id, 1, worker.server))
            engine.failures["remove"] = EngineError("Device or resource busy.")
            sweep = OrphanSweep(worker)
            await sweep.look()
            assert len(engine.containers) == 1
            engine.failures["remove"] = EngineUnavailable("Gone.")
            await sweep.look()
            assert len(engine.containers) == 1
            await sweep.look()
    assert not engine.containers
    assert "stays: Device or resource busy." in caplog.text


async def test_a_running_worker_sweeps_by_itself(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    put: Put,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orphan_sweep, "FIRST_S", 0.01)
    monkeypatch.setattr(orphan_sweep, "PERIOD_S", 0.01)
    with trio.fail_after(200):
        async with start_worker() as worker:
            await put(ContainerIdentity("w1", "run-0", 1, worker.server))
            container = next(iter(engine.containers.values()))
            await container.ended.wait()


def test_a_server_has_one_name_however_its_url_is_written() -> None:
    cases = {
        "http://localhost:5555": "http://localhost:5555",
        "HTTP://user:secret@LocalHost:5555/": "http://localhost:5555",
        "https://gyoza.example.org": "https://gyoza.example.org:443",
        "http://gyoza.example.org/team/": "http://gyoza.example.org:80/team",
        "http://[::1]:5555": "http://[::1]:5555",
    }
    for url, name in cases.items():
        assert server_name(url) == name


def test_labels_are_read_back_as_they_were_made() -> None:
    for server in ("", "http://localhost:5555"):
        identity = ContainerIdentity("w1", "run-1", 2, server)
        again = ContainerIdentity.from_labels(identity.labels)
        assert again is not None
        assert (again, again.server) == (identity, server)
    assert "gyoza.server" not in ContainerIdentity("script-1", "run-1", 1).labels


async def test_a_container_that_only_says_whose_it_is_is_swept_as_well(
    engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    async with start_worker() as worker:
        engine.leave_behind(ContainerSpec(name="odd", image="sleeper", labels={WORKER_ID: "w1"}))
        sweep = OrphanSweep(worker)
        await sweep.look()
        await sweep.look()
        assert not engine.containers
