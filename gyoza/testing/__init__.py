"""A container engine in memory, for tests of workers and steps without Docker.

A container of the fake is a coroutine, registered under the name of an image:

    async def adder(container: FakeContainer) -> int:
        numbers = json.loads(container.path(container.env["GYOZA_INPUT_JSON_PATH"]).read_text())
        await container.stdout(b"adding\\n")
        container.path(container.env["GYOZA_OUTPUT_PATH"]).write_text(json.dumps(...))
        return 0

    async with open_fake_engine() as engine:
        engine.add_image("adder", adder)
        ...                                   # hand `engine` to what is under test
        assert not engine.containers          # nothing is left behind

It keeps to the contract in `gyoza.worker.containers.engine`, raises `ContractBroken` at who does
not, and needs neither threads nor a real clock: `trio.testing.MockClock` works with it.
"""

from gyoza.testing.containers import FakeContainer, FakeImage, Program
from gyoza.testing.controls import ContractBroken, Gate
from gyoza.testing.engine import FakeContainerEngine, open_fake_engine

__all__ = [
    "ContractBroken",
    "FakeContainer",
    "FakeContainerEngine",
    "FakeImage",
    "Gate",
    "Program",
    "open_fake_engine",
]
