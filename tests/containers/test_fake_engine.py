"""What the shipped fake offers to tests beyond the contract."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from gyoza.testing import (
    ContractBroken,
    FakeContainer,
    FakeContainerEngine,
    open_fake_engine,
)
from gyoza.worker.containers.engine import ContainerExit, ContainerSpec
from gyoza.worker.errors import EngineError, EngineUnavailable

SPEC = ContainerSpec(name="c", image="image")


@pytest.fixture
async def engine() -> AsyncGenerator[FakeContainerEngine]:
    async with open_fake_engine() as engine:
        yield engine


async def sleep_an_hour(container: FakeContainer) -> int:
    await trio.sleep(3600)
    return 0


async def test_a_program_can_claim_to_be_killed_for_memory(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    async def greedy(container: FakeContainer) -> int:
        container.oom_killed = True
        return 137

    engine.add_image("image", greedy)
    await engine.start(await engine.create(SPEC))
    assert await engine.wait("c") == ContainerExit(137, oom_killed=True)


async def test_a_path_in_no_volume_does_not_exist(
    engine: FakeContainerEngine, tmp_path: Path, autojump_clock: MockClock
) -> None:
    engine.add_image("image:latest")
    spec = ContainerSpec(name="c", image="image", volumes={str(tmp_path): "/gyoza"})
    container = engine.containers[await engine.create(spec)]
    assert container.path("/gyoza/a/b") == tmp_path / "a/b"
    with pytest.raises(FileNotFoundError, match="/elsewhere"):
        container.path("/elsewhere")


async def test_misuse_is_an_assertion_error(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image")
    with pytest.raises(ContractBroken, match="volume /nonexistent"):
        await engine.create(ContainerSpec(name="c", image="image", volumes={"/nonexistent": "/"}))
    await engine.create(SPEC)
    with pytest.raises(ContractBroken, match="wait before start"):
        await engine.wait("c")
    await engine.start("c")
    with pytest.raises(ContractBroken, match="start twice"):
        await engine.start("c")
    await engine.wait("c")
    with pytest.raises(ContractBroken, match="attach after"):
        async with engine.attach("c"):
            pass
    assert issubclass(ContractBroken, AssertionError)


async def test_a_failure_is_raised_once(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image")
    engine.failures["create"] = EngineError("The disk is full.")
    with pytest.raises(EngineError, match="disk"):
        await engine.create(SPEC)
    await engine.create(SPEC)
    assert engine.calls == [("create", "c"), ("create", "c")]


async def test_a_held_call_can_be_cancelled_before_it_has_any_effect(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image")
    with engine.hold("create") as gate:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.create, SPEC)
            await gate.reached.wait()
            nursery.cancel_scope.cancel()
    assert engine.containers == {}


async def test_an_engine_that_is_away_breaks_streams_but_not_waits(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image", sleep_an_hour)
    exits: list[ContainerExit] = []

    async def wait() -> None:
        exits.append(await engine.wait("c"))

    await engine.create(SPEC)
    async with engine.attach("c") as stream, trio.open_nursery() as nursery:
        await engine.start("c")
        nursery.start_soon(wait)
        engine.unavailable = True
        engine.unavailable = True
        assert await stream.receive() == b""
        with pytest.raises(EngineUnavailable):
            await engine.info()
        await trio.sleep(7200)
        assert exits == []
        engine.unavailable = False
    assert exits == [ContainerExit(0)]


async def test_a_writer_waits_for_its_reader(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    written: list[int] = []

    async def chatty(container: FakeContainer) -> int:
        for number in range(100):
            await container.stdout(b"x")
            written.append(number)
        return 0

    engine.add_image("image", chatty)
    await engine.create(SPEC)
    async with engine.attach("c") as stream:
        await engine.start("c")
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < len(written) < 100
        while await stream.receive():
            pass
    assert len(written) == 100


async def test_programs_end_with_the_engine(autojump_clock: MockClock) -> None:
    with trio.fail_after(5):
        async with open_fake_engine() as engine:
            engine.add_image("image", sleep_an_hour)
            await engine.start(await engine.create(SPEC))
