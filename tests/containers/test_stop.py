"""Stopping and removing through outages of the engine, on a clock of the test's own."""

from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from gyoza.testing import FakeContainer, FakeContainerEngine, open_fake_engine
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.containers.stop import end_containers, remove_container, stop_container
from gyoza.worker.errors import EngineError, EngineUnavailable


async def sleep_for_ever(container: FakeContainer) -> int:
    await trio.sleep_forever()
    return 0


@pytest.fixture
async def engine() -> AsyncGenerator[FakeContainerEngine]:
    async with open_fake_engine() as engine:
        engine.add_image("obeys", sleep_for_ever)
        engine.add_image("ignores-stop", sleep_for_ever, handles_stop=True)
        yield engine


def running(engine: FakeContainerEngine, image: str) -> FakeContainer:
    return engine.leave_behind(ContainerSpec(name="c", image=image))


async def test_the_grace_period_begins_when_the_engine_has_taken_the_signal(
    engine: FakeContainerEngine,
    autojump_clock: MockClock,
) -> None:
    container = running(engine, "ignores-stop")
    engine.go_away()
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_container, engine, "c", 10)
            await trio.sleep(100)
            assert not container.stop_asked.is_set()
            engine.come_back()
            await container.stop_asked.wait()
            asked_at = trio.current_time()
            await container.ended.wait()
    assert trio.current_time() - asked_at == pytest.approx(10)
    assert container.exit_code == 137


async def test_a_container_whose_engine_goes_away_in_its_grace_period_is_killed_later(
    engine: FakeContainerEngine,
    autojump_clock: MockClock,
) -> None:
    container = running(engine, "ignores-stop")
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_container, engine, "c", 10)
            await container.stop_asked.wait()
            engine.go_away()
            await trio.sleep(100)
            assert container.state == "running"
            engine.come_back()
    assert container.exit_code == 137


@pytest.mark.parametrize("state", ["created", "running", "exited"])
async def test_all_containers_with_labels_are_ended_whatever_their_state(
    engine: FakeContainerEngine, autojump_clock: MockClock, state: str
) -> None:
    spec = ContainerSpec(name="c", image="ignores-stop", labels={"a": "b"})
    left = engine.leave_behind(spec, state)
    other = engine.leave_behind(ContainerSpec(name="other", image="obeys"))
    engine.failures["list"] = EngineUnavailable("Later.")
    with trio.fail_after(1000):
        await end_containers(engine, {"a": "b"}, grace_s=5)
    assert left.stop_asked.is_set() is (state == "running")
    assert list(engine.containers) == [other.id]


async def test_a_container_that_the_engine_ended_meanwhile_is_stopped(
    engine: FakeContainerEngine,
    autojump_clock: MockClock,
) -> None:
    container = running(engine, "obeys")
    engine.go_away()
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_container, engine, "c", 10)
            await trio.sleep(1)
            engine.come_back(containers_end_with=255)
    assert container.exit_code == 255


@pytest.mark.parametrize("method", ["ask_to_stop", "kill"])
async def test_a_signal_whose_answer_is_lost_is_sent_again(
    engine: FakeContainerEngine, autojump_clock: MockClock, method: str
) -> None:
    container = running(engine, "ignores-stop")
    engine.lost_answers.add(method)
    with trio.fail_after(1000):
        await stop_container(engine, "c", 1)
    assert container.exit_code == 137
    assert [called for called, _ in engine.calls].count(method) == 2


async def test_a_removal_is_repeated_until_the_engine_has_answered(
    engine: FakeContainerEngine,
    autojump_clock: MockClock,
) -> None:
    running(engine, "obeys")
    engine.go_away()
    engine.lost_answers.add("remove")
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remove_container, engine, "c")
            await trio.sleep(100)
            engine.come_back()
    assert engine.containers == {}


async def test_who_stops_and_removes_bounds_it(
    engine: FakeContainerEngine,
    autojump_clock: MockClock,
) -> None:
    engine.go_away()
    for call in (lambda: stop_container(engine, "c", 1), lambda: remove_container(engine, "c")):
        with trio.move_on_after(100) as scope:
            await call()
        assert scope.cancelled_caught


async def test_a_refusal_is_not_argued_with(
    engine: FakeContainerEngine,
    autojump_clock: MockClock,
) -> None:
    running(engine, "obeys")
    engine.failures["kill"] = EngineError("No.")
    with pytest.raises(EngineError, match="No"):
        await stop_container(engine, "c", 0)
    engine.failures["remove"] = EngineError("No.")
    with pytest.raises(EngineError, match="No"):
        await remove_container(engine, "c")
