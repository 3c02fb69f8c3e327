"""What the shipped fake offers to tests beyond the contract."""

from collections.abc import AsyncGenerator
from contextlib import nullcontext
from datetime import UTC, datetime
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
from gyoza.worker.containers.engine import ContainerExit, ContainerInfo, ContainerSpec
from gyoza.worker.errors import EngineError, EngineUnavailable
from tests.containers.bench import demultiplexed, read_to_end

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


async def tell(container: FakeContainer) -> int:
    await container.stdout(b"told\n")
    await trio.sleep(3600)
    await container.stdout(b"later\n")
    return 0


class Waiter:
    """A task that waits for a container's exit."""

    def __init__(self, engine: FakeContainerEngine, nursery: trio.Nursery) -> None:
        self._engine = engine
        self.exit: ContainerExit | None = None
        nursery.start_soon(self._wait)

    async def _wait(self) -> None:
        self.exit = await self._engine.wait("c")


async def test_an_engine_that_is_away_breaks_streams_but_not_waits(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image", tell)
    container = engine.leave_behind(SPEC)
    async with (
        engine.attach("c") as attached,
        engine.logs("c", follow=True) as followed,
        trio.open_nursery() as nursery,
    ):
        waiter = Waiter(engine, nursery)
        assert b"told" in await attached.receive()
        assert b"told" in await followed.receive()
        async with engine.logs("c", follow=False) as read:
            engine.go_away()
            engine.go_away()
            assert engine.unavailable
            assert await attached.receive() == await followed.receive() == b""
            with pytest.raises(EngineUnavailable):
                await read.receive()
        for call in (engine.info(), engine.create(SPEC), engine.kill("c"), engine.list({})):
            with pytest.raises(EngineUnavailable):
                await call
        await container.ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert waiter.exit is None
        engine.come_back()
    assert not engine.unavailable
    assert waiter.exit == ContainerExit(0, unseen=True, disturbed=True)
    async with engine.logs("c", follow=False) as read:
        assert [b"told" in await read.receive(), b"later" in await read.receive()] == [True, True]


@pytest.mark.parametrize("waits_from", ["before", "during", "after"])
async def test_an_engine_can_come_back_with_its_containers_ended(
    engine: FakeContainerEngine, autojump_clock: MockClock, waits_from: str
) -> None:
    engine.add_image("image", sleep_an_hour)
    created = ContainerSpec(name="created", image="image")
    engine.leave_behind(SPEC)
    engine.leave_behind(created, "created")
    async with trio.open_nursery() as nursery:
        waiters: list[Waiter] = []
        if waits_from == "before":
            waiters.append(Waiter(engine, nursery))
            await trio.testing.wait_all_tasks_blocked()
        engine.go_away()
        if waits_from == "during":
            waiters.append(Waiter(engine, nursery))
            await trio.testing.wait_all_tasks_blocked()
        engine.come_back(containers_end_with=137)
        if waits_from == "after":
            waiters.append(Waiter(engine, nursery))
    [waiter] = waiters
    away = waits_from != "after"
    assert waiter.exit == ContainerExit(137, unseen=away, disturbed=away)
    assert [container.state for container in engine.containers.values()] == ["exited", "created"]


@pytest.mark.parametrize(("ended_with", "seen"), [(255, False), (None, True)])
async def test_what_ends_while_the_engine_is_away_is_not_seen_to_end(
    engine: FakeContainerEngine, autojump_clock: MockClock, ended_with: int | None, seen: bool
) -> None:
    engine.add_image("image", sleep_an_hour)
    engine.leave_behind(SPEC)
    engine.go_away()
    engine.come_back(containers_end_with=ended_with)
    with pytest.raises(ContractBroken, match="saw_exit before") if seen else nullcontext():
        await engine.saw_exit("c")
    await engine.wait("c")
    assert await engine.saw_exit("c") is seen


async def test_a_container_can_be_left_behind_with_an_exit_that_nobody_saw(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image")
    engine.leave_behind(SPEC, "exited", exit_code=255, exit_seen=False)
    assert not await engine.saw_exit("c")


async def test_a_container_that_runs_through_an_outage_is_seen_to_end(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image", sleep_an_hour)
    engine.leave_behind(SPEC)
    async with trio.open_nursery() as nursery:
        waiter = Waiter(engine, nursery)
        await trio.testing.wait_all_tasks_blocked()
        engine.unavailable = True
        await trio.sleep(60)
        engine.unavailable = False
    assert waiter.exit == ContainerExit(0, disturbed=True)


async def test_a_restart_of_the_engine_can_cost_the_beginning_of_a_line(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image", tell)
    engine.leave_behind(SPEC, stderr=b"whole\nhalf")
    async with trio.open_nursery() as nursery:
        Waiter(engine, nursery)
        await trio.testing.wait_all_tasks_blocked()
        engine.go_away(loses_unfinished_lines=True)
        engine.come_back()
    async with engine.logs("c", follow=False) as stream:
        output = demultiplexed(await read_to_end(stream))
    assert output == (b"told\nlater\n", b"whole\n")


async def test_a_pull_fails_when_the_engine_goes_away(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image", local=False, pull_progress=("one", "two"))
    with pytest.raises(EngineUnavailable):
        await engine.pull("image", lambda _: engine.go_away())


async def test_a_container_that_was_left_behind_has_its_labels_output_and_exit(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image")
    then = datetime(2026, 1, 2, tzinfo=UTC)
    spec = ContainerSpec(name="c", image="image", labels={"a": "b"})
    left = engine.leave_behind(
        spec, "exited", stdout=b"out\nx", stderr=b"err\n", exit_code=3, created_at=then
    )
    assert await engine.list({"a": "b"}) == [
        ContainerInfo(left.id, "c", "exited", {"a": "b"}, then)
    ]
    assert await engine.wait(left.id) == ContainerExit(3)
    async with engine.logs(left.id, follow=False) as stream:
        assert demultiplexed(await read_to_end(stream)) == (b"out\nx", b"err\n")
    async with engine.logs(left.id, follow=True) as stream:
        assert demultiplexed(await read_to_end(stream)) == (b"out\nx", b"err\n")


async def test_an_answer_can_be_lost_once_though_the_call_has_its_effect(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("image", sleep_an_hour)
    engine.lost_answers = {"create", "start", "kill", "remove"}
    with pytest.raises(EngineUnavailable):
        await engine.create(SPEC)
    [container] = engine.containers.values()
    with pytest.raises(EngineUnavailable):
        await engine.start("c")
    assert container.state == "running"
    with pytest.raises(EngineUnavailable):
        await engine.kill("c")
    assert await engine.wait("c") == ContainerExit(137)
    with pytest.raises(EngineUnavailable):
        await engine.remove("c")
    assert engine.containers == {}
    await engine.create(SPEC)


async def test_what_a_program_writes_after_its_end_is_lost(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    async def lingering(container: FakeContainer) -> int:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await container.stdout(b"late\n")
        return 0

    engine.add_image("image", lingering)
    container = engine.leave_behind(SPEC)
    await trio.testing.wait_all_tasks_blocked()
    engine.come_back(containers_end_with=143)
    await trio.testing.wait_all_tasks_blocked()
    assert container.exit_code == 143
    async with engine.logs("c", follow=False) as stream:
        assert await stream.receive() == b""


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
    with trio.fail_after(200):
        async with open_fake_engine() as engine:
            engine.add_image("image", sleep_an_hour)
            await engine.start(await engine.create(SPEC))
