"""GPUs handed out to runs exclusively."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gyoza.models import FailureReason
from gyoza.worker.containers.gpus import GpuPool
from gyoza.worker.errors import WorkerError
from gyoza.worker.worker_context import GPU


@pytest.fixture
def pool() -> GpuPool:
    return GpuPool([GPU(0, 40), GPU(1, 80), GPU(2, 80)])


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
            async with self._pool.hold(self._vram_mb) as gpu_ids:
                self.got = gpu_ids
                await self.let_go.wait()


async def _start(nursery: trio.Nursery, pool: GpuPool, *requests: int) -> list[Holder]:
    """Start a holder for each request, each asking before the next, and let them settle."""
    holders = [Holder(pool, vram_mb) for vram_mb in requests]
    for holder in holders:
        nursery.start_soon(holder.run)
        await wait_all_tasks_blocked()
    return holders


async def test_nobody_else_gets_a_gpu_that_is_held(pool: GpuPool) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            holders = await _start(nursery, pool, 50, 30, 60)
            assert [holder.got for holder in holders] == [[1], [0], [2]]
            nursery.cancel_scope.cancel()
    async with pool.hold(200) as gpu_ids:
        assert gpu_ids == [0, 1, 2]


async def test_a_request_waits_until_enough_is_given_back(pool: GpuPool) -> None:
    with trio.fail_after(5):
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
    with trio.fail_after(5):
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
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            all_of_them, waiting = await _start(nursery, pool, 200, 10)
            async with pool.hold(0) as gpu_ids:
                assert gpu_ids == []
            all_of_them.let_go.set()
            waiting.let_go.set()
    async with GpuPool([]).hold(0) as gpu_ids:
        assert gpu_ids == []


async def test_a_cancelled_request_leaves_the_queue(pool: GpuPool) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            holder, head, second, third = await _start(nursery, pool, 200, 100, 100, 10)
            head.scope.cancel()
            second.scope.cancel()
            holder.let_go.set()
            await wait_all_tasks_blocked()
            assert (head.got, second.got, third.got) == (None, None, [0])
            third.let_go.set()
    async with pool.hold(200) as gpu_ids:
        assert gpu_ids == [0, 1, 2]


async def test_gpus_come_back_when_the_run_fails(pool: GpuPool) -> None:
    with pytest.raises(KeyError):
        async with pool.hold(200):
            raise KeyError
    with trio.fail_after(5):
        async with pool.hold(200) as gpu_ids:
            assert gpu_ids == [0, 1, 2]


async def test_a_request_that_can_never_be_met_is_refused_at_once(pool: GpuPool) -> None:
    with pytest.raises(WorkerError, match=r"201 MB of GPU memory .* 200 MB in all") as caught:
        async with pool.hold(201):
            pass
    assert caught.value.reason is FailureReason.POLICY


async def test_gpus_that_are_reserved_go_to_nobody_else(pool: GpuPool) -> None:
    pool.reserve([0, 1, 99])  # the machine has lost one since
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            other, waiting = await _start(nursery, pool, 80, 100)
            assert (other.got, waiting.got) == ([2], None)
            pool.release([0, 1, 99])
            await wait_all_tasks_blocked()
            assert waiting.got == [0, 1]
            other.let_go.set()
            waiting.let_go.set()
    async with pool.hold(200) as gpu_ids:
        assert gpu_ids == [0, 1, 2]


async def test_a_reservation_can_be_given_up(pool: GpuPool) -> None:
    pool.reserve([0, 1, 2])
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            [waiting] = await _start(nursery, pool, 200)
            assert waiting.got is None
            pool.release([0, 1, 2, 99])
            await wait_all_tasks_blocked()
            assert waiting.got == [0, 1, 2]
            waiting.let_go.set()
