"""Hands out this machine's GPUs to runs, exclusively and by name.

What this process has given is remembered here. What an earlier life of the worker, another worker
or a script has given is read from the labels of the engine's containers, each time GPUs are asked
for: a container holds the GPUs that it was made for until it has ended.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager

import trio

from gyoza.models import MIG_TAG, pick_gpus
from gyoza.worker.containers.engine import ContainerEngine
from gyoza.worker.containers.labels import GPUS, WORKER_ID, devices_of
from gyoza.worker.errors import GpusTooSmall
from gyoza.worker.worker_context.types import GPU

LOOK_AGAIN_S = 2.0
"""Seconds between two looks for GPUs that others hold."""

ENDED = ("exited", "dead")
"""States in which a container holds nothing any more, and will not again."""

logger = logging.getLogger(__name__)


async def devices_in_use(engine: ContainerEngine, but: str = "") -> set[str]:
    """Return the names of the GPUs that containers on the engine hold, or are about to.

    Args:
        engine: All its containers count, whichever worker's they are.
        but: Id of a container that does not count.

    Raises:
        EngineError: If the engine does not tell.
    """
    found = await engine.list({WORKER_ID: "", GPUS: ""})
    holders = [c for c in found if c.state not in ENDED and c.id != but]
    return {device for holder in holders for device in devices_of(holder.labels)}


class GpuPool:
    """The GPUs nobody holds; who waits for some is served in the order of asking.

    Args:
        gpus: All GPUs of the worker.
    """

    def __init__(self, gpus: Iterable[GPU]) -> None:
        self._gpus = {gpu.id: gpu for gpu in gpus}
        self._alone = {gpu.id for gpu in self._gpus.values() if MIG_TAG in gpu.tags}
        self._held: set[int] = set()
        self._turn = trio.Lock()  # fair: holding it means being the first in the queue
        self._given_back = trio.Event()

    @asynccontextmanager
    async def hold(
        self, vram_mb: int, in_use: Callable[[], Awaitable[Collection[str]]]
    ) -> AsyncGenerator[dict[int, str]]:
        """Hold GPUs that together have `vram_mb`, and give them back at the end.

        Waits until enough are free. A run that asks for none (0) never waits and gets none.

        Args:
            vram_mb: GPU memory in MB.
            in_use: Tells the names of GPUs that are held on this machine, by whomever.

        Returns:
            The names of the GPUs, as the engine takes them, by their ids.

        Raises:
            GpusTooSmall: If all GPUs together would not be enough.
        """
        self._require_enough(vram_mb)
        chosen = await self._take(vram_mb, in_use) if vram_mb > 0 else []
        try:
            yield {gpu: self._gpus[gpu].device for gpu in chosen}
        finally:
            self._held.difference_update(chosen)
            self._given_back.set()

    def _require_enough(self, vram_mb: int) -> None:
        sizes = {gpu.id: gpu.vram_mb for gpu in self._gpus.values()}
        if pick_gpus(sizes, vram_mb, self._alone) is not None:
            return
        together = sum(size for gpu, size in sizes.items() if gpu not in self._alone)
        most = max([together, *sizes.values()])
        raise GpusTooSmall(
            f"The run asks for {vram_mb} MB of GPU memory and this worker can give a run no more "
            f"than {most} MB: lower the constraint vram_mb or give the run to a worker with more."
        )

    async def _take(
        self, vram_mb: int, in_use: Callable[[], Awaitable[Collection[str]]]
    ) -> list[int]:
        async with self._turn:
            while True:
                given_back = self._given_back = trio.Event()
                elsewhere = await in_use()
                free = {
                    gpu.id: gpu.vram_mb
                    for gpu in self._gpus.values()
                    if gpu.id not in self._held and gpu.device not in elsewhere
                }
                chosen = pick_gpus(free, vram_mb, self._alone)
                if chosen is not None:
                    self._held.update(chosen)
                    return chosen
                logger.debug(
                    "A run waits for %d MB of GPU memory; containers hold: %s.",
                    vram_mb,
                    ", ".join(sorted(elsewhere)) or "none",
                )
                with trio.move_on_after(LOOK_AGAIN_S):
                    await given_back.wait()
