"""A worker with the least of servers."""

import json

import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker


async def double(container: FakeContainer) -> int:
    inputs = json.loads(container.path(container.env["GYOZA_INPUT_JSON_PATH"]).read_bytes())
    await container.stdout(b'::gyoza::{"type": "PROGRESS", "msg": 50}\nhalf way\n')
    outputs = {"doubled": inputs["n"] * 2}
    container.path(container.env["GYOZA_OUTPUT_PATH"]).write_text(json.dumps(outputs))
    return 0


async def test_a_run_goes_from_claim_to_completed_with_its_outputs(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("double", double)
    server.submit("run-1", "double", inputs={"n": 21})
    with trio.fail_after(200):
        async with start_worker():
            completed = await server.wait_for_event("COMPLETED", "run-1")
    assert completed["payload"] == {"doubled": 42}
    assert [e["type"] for e in server.events] == ["STARTED", "PROGRESS", "COMPLETED"]
    assert [e["seq"] for e in server.events] == [1, 2, 3]
    assert not engine.containers
