"""What an earlier life of a worker has left: a record, and maybe a container.

Importing the fixture `earlier` gives a test file such a life.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from gyoza.models import OpRun
from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.containers.labels import ContainerIdentity, of_gpus
from gyoza.worker.op_io.op_dir import make_op_dir
from gyoza.worker.run_record import RunRecord
from gyoza.worker.settings import WorkerSettings
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever

RUN = "run-1"
RELEASE = f"POST /runs/{RUN}/release"


async def chat(container: FakeContainer) -> int:
    await container.stdout(b'one\n::gyoza::{"type": "INFO", "msg": "x"}\ntwo\n')
    container.path(container.env["GYOZA_OUTPUT_PATH"]).write_text('{"n": 1}')
    return 0


class EarlierLife:
    """What a worker that was killed has left: a record, and maybe a container."""

    def __init__(
        self, server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
    ) -> None:
        self.server, self.engine = server, engine
        self.work_dir = settings.work_dir / settings.worker_id
        self.identity = ContainerIdentity(settings.worker_id, RUN, 1)

    def claimed(self, image: str = "chat", **fields: Any) -> RunRecord:
        """Claim a run; the caller adds to the record and closes it."""
        self.server.submit(RUN, image, state="RUNNING", **fields)
        self.server.take(RUN)
        return RunRecord.create(self.work_dir / f"{RUN}.1", OpRun.from_dict(self.server.runs[RUN]))

    def container(
        self, record: RunRecord, devices: Sequence[str] = (), **left: Any
    ) -> FakeContainer:
        """Leave a container of the run."""
        spec = ContainerSpec(
            name=self.identity.name,
            image=record.run.image,
            labels=self.identity.labels | of_gpus(devices),
            env={"GYOZA_OUTPUT_PATH": "/gyoza/output"},
            volumes={str(make_op_dir(record.directory)): "/gyoza"},
        )
        return self.engine.leave_behind(spec, **left)


@pytest.fixture
def earlier(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> EarlierLife:
    server.keeps_logs = True
    engine.add_image("chat", chat)
    engine.add_image("sleeper", sleep_for_ever)
    return EarlierLife(server, engine, settings)


async def start_again(start_worker: StartWorker, earlier: EarlierLife) -> None:
    """Start the worker, wait until it has dealt with the run, and see that nothing is left."""
    with trio.fail_after(200):
        async with start_worker() as worker:
            await end_of(worker, RUN)
    assert not earlier.engine.containers
    assert not list(earlier.work_dir.iterdir())
