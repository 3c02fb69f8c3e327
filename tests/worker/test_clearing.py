"""What an op leaves and its worker may not remove is cleared by the engine, as far as it can."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.errors import EngineError, OpDirNotRemoved
from gyoza.worker.execution_pipeline.steps import cleanup_op_dir
from gyoza.worker.op_io.op_dir import remove_op_dir
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of

RunOp = Callable[..., Awaitable[None]]

NAME = ContainerIdentity("w1", "run-1", 1).cleanup_name


async def leave_folders(container: FakeContainer) -> int:
    folder = container.path("/gyoza/theirs/inner")
    folder.mkdir(parents=True)
    (folder / "file").touch()
    return 0


async def leave_folders_and_go_on(container: FakeContainer) -> int:
    await leave_folders(container)
    await container.stdout(b'::gyoza::{"type": "INFO", "msg": "left"}\n')
    await trio.sleep_forever()
    return 0


@pytest.fixture
def run_op(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> RunOp:
    """Return what runs the op on a worker that can remove no folder with a folder in it."""

    def remove_if_allowed(folder: Path) -> None:
        if any(inner.is_dir() for inner in folder.iterdir()):
            raise OpDirNotRemoved(f"{folder} cannot be removed; remove it by hand.")
        remove_op_dir(folder)

    monkeypatch.setattr(cleanup_op_dir, "remove_op_dir", remove_if_allowed)
    engine.add_image("leaves-folders", leave_folders)
    engine.add_image("goes-on", leave_folders_and_go_on)

    async def run(*, cancelled: bool = False) -> None:
        server.submit("run-1", "goes-on" if cancelled else "leaves-folders")
        with trio.fail_after(200):
            async with start_worker() as worker:
                await server.wait_for_event("INFO" if cancelled else "COMPLETED", "run-1")
                if cancelled:
                    server.cancel("run-1")
                await end_of(worker, "run-1")
        assert not engine.containers

    return run


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_engine_clears_what_the_worker_may_not_remove(
    engine: FakeContainerEngine,
    run_op: RunOp,
    caplog: pytest.LogCaptureFixture,
    cancelled: bool,
) -> None:
    await run_op(cancelled=cancelled)
    assert ("replace_folders", NAME) in engine.calls
    assert ("start", NAME) not in engine.calls
    assert "by hand" not in caplog.text


async def test_the_container_for_it_of_an_earlier_life_is_not_in_the_way(
    engine: FakeContainerEngine,
    run_op: RunOp,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("any")
    engine.leave_behind(ContainerSpec(name=NAME, image="any"), "created")
    await run_op()
    assert "by hand" not in caplog.text


async def test_an_engine_that_refuses_it_leaves_the_folder_to_a_person(
    engine: FakeContainerEngine,
    run_op: RunOp,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.failures["replace_folders"] = EngineError("The engine refused.")
    await run_op()
    assert "by hand" in caplog.text


def test_its_container_is_nobodys_run_and_holds_no_gpus() -> None:
    labels = ContainerIdentity("w1", "run-1", 1).cleanup_labels
    assert ContainerIdentity.from_labels(labels) is None
    assert labels["gyoza.worker_id"] == "w1"
    assert labels["gyoza.gpus"] == ""
