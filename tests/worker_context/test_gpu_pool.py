"""GPUs handed out to runs exclusively."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gyoza.models import MIG_TAG, FailureReason
from gyoza.worker.containers import gpus as gpu_pool
from gyoza.worker.containers.gpus import GpuPool
from gyoza.worker.errors import WorkerError
from gyoza.worker.worker_context import GPU
from gyoza.worker.worker_context.types import NamedGPU


@pytest.fixture
def pool() -> GpuPool:
    return GpuPool([GPU(0, 40), GPU(1, 80), GPU(2, 80)])


async def nobody() -> set[str]:
    """Tell that nobody else on the machine holds GPUs."""
    return set()


class Holder:
    """A task that holds GPUs until told to let go."""

    def __init__(self, pool: GpuPool, vram_mb: int) -> None:
        self._pool = pool
        self._vram_mb = vram_mb
        self.let_go = trio.Event()
        self.got: list[int] | None = None
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            async with self._pool.hold(self._vram_mb, nobody) as gpus:
                self.got = list(gpus)
                await self.let_go.wait()


async def _start(nursery: trio.Nursery, pool: GpuPool, *requests: int) -> list[Holder]:
    """Start a holder for each request, each asking before the next, and let them settle."""
    holders = [Holder(pool, vram_mb) for vram_mb in requests]
    for holder in holders:
        nursery.start_soon(holder.run)
        await wait_all_tasks_blocked()
    return holders


async def test_nobody_else_gets_a_gpu_that_is_held(pool: GpuPool) -> None:
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            holders = await _start(nursery, pool, 50, 30, 60)
            assert [holder.got for holder in holders] == [[1], [0], [2]]
            nursery.cancel_scope.cancel()
    async with pool.hold(200, nobody) as gpus:
        assert list(gpus) == [0, 1, 2]


async def test_a_request_waits_until_enough_is_given_back(pool: GpuPool) -> None:
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            small, large, waiting = await _start(nursery, pool, 40, 160, 120)
            assert (small.got, large.got, waiting.got) == ([0], [1, 2], None)
            small.let_go.set()
            await wait_all_tasks_blocked()
            assert waiting.got is None
            large.let_go.set()
            await wait_all_tasks_blocked()
            assert waiting.got == [1, 2]
            waiting.let_go.set()


async def test_requests_are_served_in_the_order_of_asking(pool: GpuPool) -> None:
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            first, large, small = await _start(nursery, pool, 80, 200, 10)
            assert small.got is None  # though a GPU is free: else the large one could starve
            first.let_go.set()
            await wait_all_tasks_blocked()
            assert large.got == [0, 1, 2]
            assert small.got is None
            large.let_go.set()
            await wait_all_tasks_blocked()
            assert small.got == [0]
            small.let_go.set()


async def test_a_request_for_nothing_never_waits(pool: GpuPool) -> None:
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            all_of_them, waiting = await _start(nursery, pool, 200, 10)
            async with pool.hold(0, nobody) as gpus:
                assert list(gpus) == []
            all_of_them.let_go.set()
            waiting.let_go.set()
    async with GpuPool([]).hold(0, nobody) as gpus:
        assert list(gpus) == []


async def test_a_cancelled_request_leaves_the_queue(pool: GpuPool) -> None:
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            holder, head, second, third = await _start(nursery, pool, 200, 100, 100, 10)
            head.scope.cancel()
            second.scope.cancel()
            holder.let_go.set()
            await wait_all_tasks_blocked()
            assert (head.got, second.got, third.got) == (None, None, [0])
            third.let_go.set()
    async with pool.hold(200, nobody) as gpus:
        assert list(gpus) == [0, 1, 2]


async def test_gpus_come_back_when_the_run_fails(pool: GpuPool) -> None:
    with pytest.raises(KeyError):
        async with pool.hold(200, nobody):
            raise KeyError
    with trio.fail_after(200):
        async with pool.hold(200, nobody) as gpus:
            assert list(gpus) == [0, 1, 2]


async def test_a_request_that_can_never_be_met_is_refused_at_once(pool: GpuPool) -> None:
    with pytest.raises(WorkerError, match=r"201 MB of GPU memory .* no more than 200 MB") as caught:
        async with pool.hold(201, nobody):
            pass
    assert caught.value.reason is FailureReason.POLICY


async def test_gpus_that_others_on_the_machine_hold_are_not_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_pool, "LOOK_AGAIN_S", 0.01)
    pool = GpuPool([NamedGPU(0, 40, [], "GPU-a"), NamedGPU(1, 80, [], "GPU-b")])
    others, looks = {"GPU-a", "GPU-b", "GPU-of-elsewhere"}, 0

    async def elsewhere() -> set[str]:
        nonlocal looks
        looks += 1
        if looks == 3:
            others.remove("GPU-b")
        return others

    with trio.fail_after(200):
        async with pool.hold(10, elsewhere) as gpus:
            assert gpus == {1: "GPU-b"}
    assert looks == 3


async def test_what_was_given_back_during_a_look_is_looked_at_again(pool: GpuPool) -> None:
    looking, look = trio.Event(), trio.Event()
    stale = [{"0", "1", "2"}, set[str]()]

    async def elsewhere() -> set[str]:
        looking.set()
        await look.wait()
        return stale.pop(0)

    with trio.fail_after(1):  # less than the time between two looks
        async with trio.open_nursery() as nursery:
            [first] = await _start(nursery, pool, 200)

            async def wait_for_it() -> None:
                async with pool.hold(200, elsewhere) as gpus:
                    assert list(gpus) == [0, 1, 2]

            nursery.start_soon(wait_for_it)
            await looking.wait()
            first.let_go.set()
            await wait_all_tasks_blocked()
            look.set()


async def test_a_mig_instance_is_handed_out_alone() -> None:
    mig = [NamedGPU(100 + n, size, [MIG_TAG], f"MIG-{n}") for n, size in enumerate((20, 40, 20))]
    pool = GpuPool([GPU(1, 30), *mig])
    async with pool.hold(35, nobody) as large, pool.hold(15, nobody) as small:
        assert (large, small) == ({101: "MIG-1"}, {100: "MIG-0"})
    with pytest.raises(WorkerError, match="no more than 40 MB"):
        async with pool.hold(41, nobody):
            pass
