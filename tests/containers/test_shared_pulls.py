"""Pull policies, and pulls that are shared."""

from collections.abc import AsyncGenerator
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from gyoza.testing import FakeContainerEngine, open_fake_engine
from gyoza.worker.containers.engine import ImageInfo
from gyoza.worker.containers.pulls import (
    REGISTRY_WAIT_S,
    STALL_S,
    Progress,
    PullPolicy,
    SharedPulls,
)
from gyoza.worker.errors import (
    EngineUnavailable,
    ImageNotFound,
    ImagePullError,
    RegistryUnavailable,
)

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
async def engine() -> AsyncGenerator[FakeContainerEngine]:
    async with open_fake_engine() as engine:
        yield engine


@pytest.fixture
async def pulls(engine: FakeContainerEngine, nursery: trio.Nursery) -> SharedPulls:
    return SharedPulls(engine, nursery)


def pulls_of(engine: FakeContainerEngine) -> list[str]:
    return [subject for method, subject in engine.calls if method == "pull"]


async def test_always_pulls_what_is_here_already(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("adder", pull_progress=("half", "all"))
    told: list[str] = []
    await pulls.ensure("adder", "always", told.append)
    await pulls.ensure("adder", "always", told.append)
    assert told == ["half", "all"] * 2
    assert pulls_of(engine) == ["adder"] * 2


async def test_an_image_that_was_built_here_is_used_as_it_is(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("mine", in_registry=False)
    told: list[str] = []
    await pulls.ensure("mine", "always", told.append)
    assert not told
    assert not pulls_of(engine)


async def test_an_image_that_only_carries_another_name_of_a_registry_was_built_here(
    engine: FakeContainerEngine, pulls: SharedPulls, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find_image(image: str) -> ImageInfo:
        return ImageInfo("sha256:1", [f"docker.io/library/python@{DIGEST}", "<none>@<none>"])

    monkeypatch.setattr(engine, "find_image", find_image)
    await pulls.ensure("mine", "always", print)
    assert not pulls_of(engine)
    with pytest.raises(ImagePullError):
        await pulls.ensure("python", "always", print)


async def test_an_image_that_is_named_by_what_it_holds_is_pulled_once(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    named = f"example.org/op@{DIGEST}"
    engine.add_image(named, local=False)
    await pulls.ensure(named, "always", print)
    await pulls.ensure(named, "always", print)
    assert pulls_of(engine) == [named]


async def test_an_id_is_never_pulled(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image(DIGEST, in_registry=False)
    await pulls.ensure(DIGEST, "always", print)
    with pytest.raises(ImageNotFound, match="no id can be pulled"):
        await pulls.ensure("sha256:" + "1" * 64, "always", print)
    assert not pulls_of(engine)


class Away:
    """Lets the registry be away, and remembers when it was asked."""

    def __init__(self, engine: FakeContainerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = True
        self.asked_at: list[float] = []
        self._pull = engine.pull
        monkeypatch.setattr(engine, "pull", self)

    async def __call__(self, image: str, on_progress: Progress) -> None:
        self.asked_at.append(trio.current_time())
        await trio.sleep(0.1)
        if self.away:
            raise RegistryUnavailable(f"Cannot pull {image}: connection refused.")
        await self._pull(image, on_progress)


@pytest.fixture
def away(engine: FakeContainerEngine, monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(engine, monkeypatch)


RETRYING = "Cannot pull adder: connection refused. Retrying."


async def test_a_registry_that_is_away_for_a_moment_is_a_delay(
    engine: FakeContainerEngine, pulls: SharedPulls, away: Away, autojump_clock: MockClock
) -> None:
    engine.add_image("adder", local=False, pull_progress=("half", "all"))
    told: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulls.ensure, "adder", "always", told.append)
        await trio.sleep(REGISTRY_WAIT_S / 2)
        away.away = False
    assert told == [RETRYING, "half", "all"]
    waits = [later - earlier for earlier, later in pairwise(away.asked_at)]
    assert len(waits) > 3
    assert waits[0] < waits[-1]


async def test_an_image_that_is_here_is_used_when_its_registry_stays_away(
    engine: FakeContainerEngine, pulls: SharedPulls, away: Away, autojump_clock: MockClock
) -> None:
    engine.add_image("adder")
    told: list[str] = []
    begun_at = trio.current_time()
    await pulls.ensure("adder", "always", told.append)
    assert trio.current_time() - begun_at == pytest.approx(REGISTRY_WAIT_S, abs=1)
    used = "Using the image that is here; there may be a newer one."
    assert told == [RETRYING, f"Cannot pull adder: connection refused. {used}"]
    begun_at = trio.current_time()
    await pulls.ensure("adder", "always", told.append)  # the next one need not wait for that
    assert trio.current_time() - begun_at < 1
    away.away = False
    await pulls.ensure("adder", "always", told.append)
    away.away = True
    begun_at = trio.current_time()
    await pulls.ensure("adder", "always", told.append)
    assert trio.current_time() - begun_at > 100


async def test_an_image_that_is_nowhere_fails_when_its_registry_stays_away(
    pulls: SharedPulls, away: Away, autojump_clock: MockClock
) -> None:
    for _ in range(2):
        begun_at = trio.current_time()
        with pytest.raises(RegistryUnavailable, match="connection refused"):
            await pulls.ensure("adder", "always", print)
        assert trio.current_time() - begun_at == pytest.approx(REGISTRY_WAIT_S, abs=1)


async def test_who_comes_later_waits_as_long_for_an_image_that_is_nowhere(
    pulls: SharedPulls, away: Away, autojump_clock: MockClock
) -> None:
    ended_at: list[float] = []

    async def ensure() -> None:
        with pytest.raises(RegistryUnavailable):
            await pulls.ensure("adder", "always", print)
        ended_at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ensure)
        await trio.sleep(60)
        nursery.start_soon(ensure)
    assert ended_at[1] - ended_at[0] == pytest.approx(60, abs=1)


async def test_a_cancel_ends_the_wait_for_a_registry_at_once(
    pulls: SharedPulls, away: Away, autojump_clock: MockClock
) -> None:
    begun_at = trio.current_time()
    with trio.move_on_after(20):
        await pulls.ensure("adder", "always", print)
    assert trio.current_time() - begun_at == pytest.approx(20)
    asked = len(away.asked_at)
    await trio.sleep(300)
    assert len(away.asked_at) == asked


async def test_what_this_worker_lacks_is_not_waited_for_as_a_registry(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("adder")
    engine.failures["pull"] = RegistryUnavailable("Cannot pull adder: no space left on device.")
    begun_at = trio.current_time()
    with pytest.raises(RegistryUnavailable, match="no space left"):
        await pulls.ensure("adder", "always", print)
    assert trio.current_time() == begun_at


async def test_a_registry_that_denies_an_image_is_not_asked_again(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("adder")
    engine.failures["pull"] = ImagePullError("Cannot pull adder: denied.")
    with pytest.raises(ImagePullError, match=r"denied\. This worker has an image of that name"):
        await pulls.ensure("adder", "always", print)
    assert pulls_of(engine) == ["adder"]


async def test_an_image_that_was_pulled_before_is_not_used_when_the_pull_fails(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("adder")
    await pulls.ensure("adder", "always", print)
    engine.failures["pull"] = ImagePullError("Cannot pull adder: denied.")
    with pytest.raises(ImagePullError, match="denied"):
        await pulls.ensure("adder", "always", print)


async def test_an_image_that_is_nowhere_cannot_be_pulled(
    pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    with pytest.raises(ImagePullError, match="Cannot pull nowhere"):
        await pulls.ensure("nowhere", "always", print)


async def test_missing_pulls_only_what_is_not_here(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("here")
    engine.add_image("there", local=False)
    for image in ("here", "there", "there"):
        await pulls.ensure(image, "missing", print)
    assert pulls_of(engine) == ["there"]


async def test_never_pulls_nothing(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("here")
    engine.add_image("there", local=False)
    await pulls.ensure("here", "never", print)
    with pytest.raises(ImageNotFound, match="no image there and its pull policy is never"):
        await pulls.ensure("there", "never", print)
    assert pulls_of(engine) == []


@pytest.mark.parametrize("policy", ["always", "missing", "never"])
async def test_an_engine_that_is_away_is_said_to_be(
    engine: FakeContainerEngine, pulls: SharedPulls, policy: PullPolicy, autojump_clock: MockClock
) -> None:
    engine.unavailable = True
    with pytest.raises(EngineUnavailable):
        await pulls.ensure("adder", policy, print)


async def test_one_pull_serves_all_who_wait_and_tells_each(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("adder", pull_progress=("half", "all"))
    told: list[list[str]] = [[], [], []]
    async with trio.open_nursery() as nursery:
        for sentences in told:
            nursery.start_soon(pulls.ensure, "adder", "always", sentences.append)
            await trio.sleep(0.1)
    assert pulls_of(engine) == ["adder"]
    assert told == [["half", "all"]] * 3


async def test_different_images_are_pulled_at_the_same_time(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("one", pull_progress=("one",))
    engine.add_image("two", pull_progress=("two",))
    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulls.ensure, "one", "always", print)
        nursery.start_soon(pulls.ensure, "two", "always", print)
    assert trio.current_time() - start_s < 1.5


async def test_an_error_reaches_all_who_wait(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.failures["pull"] = ImagePullError("Cannot pull adder: denied.")
    errors: list[ImagePullError] = []

    async def ensure() -> None:
        with pytest.raises(ImagePullError, match="denied") as caught:
            await pulls.ensure("adder", "always", print)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        with engine.hold("pull") as gate:
            nursery.start_soon(ensure)
            nursery.start_soon(ensure)
            await gate.reached.wait()
            await trio.testing.wait_all_tasks_blocked()
    assert len(errors) == 2
    assert errors[0] is not errors[1]


async def test_the_first_to_wait_may_be_cancelled_without_harm_to_the_others(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("adder", pull_progress=("half", "all"))
    first = trio.CancelScope()

    async def ensure_first() -> None:
        with first:
            await pulls.ensure("adder", "always", print)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ensure_first)
        await trio.sleep(0.5)
        nursery.start_soon(pulls.ensure, "adder", "always", print)
        await trio.sleep(0.1)
        first.cancel()
    assert first.cancelled_caught
    assert pulls_of(engine) == ["adder"]
    found = await engine.find_image("adder")
    assert found is not None
    assert found.repo_digests


async def test_the_pull_ends_with_the_last_who_waits_and_the_next_begins_anew(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("adder", local=False, pull_progress=("half", "all"))
    with trio.move_on_after(0.5) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pulls.ensure, "adder", "always", print)
            nursery.start_soon(pulls.ensure, "adder", "always", print)
    assert scope.cancelled_caught
    await trio.sleep(10)
    assert await engine.find_image("adder") is None
    await pulls.ensure("adder", "always", print)
    assert pulls_of(engine) == ["adder"] * 2


async def test_the_end_of_the_owner_is_an_error_for_who_still_waits(
    engine: FakeContainerEngine, autojump_clock: MockClock
) -> None:
    engine.add_image("adder", local=False, pull_progress=("half", "all"))

    async with trio.open_nursery() as owner, trio.open_nursery() as waiting:
        pulls = SharedPulls(engine, owner)

        async def ensure() -> None:
            with pytest.raises(ImagePullError, match="was stopped"):
                await pulls.ensure("adder", "always", print)

        with trio.CancelScope(shield=True):
            waiting.start_soon(ensure)
            await trio.sleep(0.5)
            waiting.cancel_scope.shield = True
            owner.cancel_scope.cancel()


async def test_a_pull_that_makes_no_progress_is_given_up(
    engine: FakeContainerEngine, pulls: SharedPulls, autojump_clock: MockClock
) -> None:
    engine.add_image("stuck", local=False)
    with engine.hold("pull"), pytest.raises(ImagePullError, match="no progress for 300 s"):
        await pulls.ensure("stuck", "always", print)


async def test_a_slow_pull_goes_on_as_long_as_it_moves(
    engine: FakeContainerEngine,
    pulls: SharedPulls,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def pull(image: str, on_progress: Progress) -> None:
        for _ in range(10):
            await trio.sleep(STALL_S - 1)
            on_progress("extracting")

    engine.add_image("slow")
    monkeypatch.setattr(engine, "pull", pull)
    told: list[str] = []
    await pulls.ensure("slow", "always", told.append)
    assert told == ["extracting"]
