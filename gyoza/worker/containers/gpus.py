"""Hands out this worker's GPUs to runs, exclusively and by id."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

import trio

from gyoza.models import pick_gpus
from gyoza.worker.errors import GpusTooSmall
from gyoza.worker.worker_context.types import GPU


class GpuPool:
    """The GPUs nobody holds; who waits for some is served in the order of asking.

    Args:
        gpus: All GPUs of the worker.
    """

    def __init__(self, gpus: Iterable[GPU]) -> None:
        self._all = {gpu.id: gpu.vram_mb for gpu in gpus}
        self._free = dict(self._all)
        self._turn = trio.Lock()  # fair: holding it means being the first in the queue
        self._given_back = trio.Event()

    def reserve(self, gpu_ids: Iterable[int]) -> None:
        """Keep GPUs for a run that is taken up again, until they are released.

        Args:
            gpu_ids: Ids that nobody holds; those this worker does not have are ignored.
        """
        for gpu in gpu_ids:
            self._free.pop(gpu, None)

    def release(self, gpu_ids: Iterable[int]) -> None:
        """Give back GPUs that were reserved."""
        self._free.update({gpu: self._all[gpu] for gpu in gpu_ids if gpu in self._all})
        self._given_back.set()

    @asynccontextmanager
    async def hold(self, vram_mb: int) -> AsyncGenerator[list[int]]:
        """Hold GPUs that together have `vram_mb`, and give them back at the end.

        Waits until enough are free. A run that asks for none (0) never waits and gets `[]`.

        Args:
            vram_mb: GPU memory in MB.

        Raises:
            GpusTooSmall: If all GPUs together would not be enough.
        """
        self._require_enough(vram_mb)
        chosen = await self._take(vram_mb) if vram_mb > 0 else []
        try:
            yield chosen
        finally:
            self.release(chosen)

    def _require_enough(self, vram_mb: int) -> None:
        if pick_gpus(self._all, vram_mb) is None:
            raise GpusTooSmall(
                f"The run asks for {vram_mb} MB of GPU memory and this worker has "
                f"{sum(self._all.values())} MB in all: lower the constraint vram_mb or give the "
                "run to a worker with more."
            )

    async def _take(self, vram_mb: int) -> list[int]:
        async with self._turn:
            while (chosen := pick_gpus(self._free, vram_mb)) is None:
                self._given_back = trio.Event()
                await self._given_back.wait()
            for gpu in chosen:
                del self._free[gpu]
            return chosen
