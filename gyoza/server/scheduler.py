"""Which pending run fits which worker; pure functions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from gyoza.models import MIG_TAG, Constraints, pick_gpus


class Pending(Protocol):
    """What the scheduler looks at in a run that waits."""

    @property
    def constraints(self) -> Constraints:
        """What it needs."""
        ...

    @property
    def tags(self) -> Sequence[str]:
        """The tags its worker must have."""
        ...


PendingT = TypeVar("PendingT", bound=Pending)


@dataclass
class Capacity:
    """What a worker has left.

    Attributes:
        tags: Its own tags and those of its GPUs.
        cpu: Free cores.
        ram_mb: Free memory in MB.
        gpus: VRAM in MB by id of the GPUs nobody holds.
        alone: Ids of those that can be used alone only.
    """

    tags: frozenset[str]
    cpu: float
    ram_mb: float
    gpus: dict[int, int]
    alone: frozenset[int] = field(default_factory=frozenset[int])

    def fits(self, run: Pending) -> bool:
        """Return whether a run could be had."""
        return self.tags.issuperset(run.tags) and self._find(run.constraints) is not None

    def reserve(self, need: Constraints) -> bool:
        """Take what a run needs; without all of it, take nothing and return False."""
        chosen = self._find(need)
        if chosen is None:
            return False
        self._take(need.cpu or 0, need.ram_mb or 0, chosen)
        return True

    def occupy(self, need: Constraints) -> None:
        """Subtract what a run holds already, whether or not the worker still has that much."""
        chosen = self._pick(need)
        self._take(need.cpu or 0, need.ram_mb or 0, list(self.gpus) if chosen is None else chosen)

    def _find(self, need: Constraints) -> list[int] | None:
        """Return the GPUs for a run; None if it does not fit."""
        cpu, ram_mb = need.cpu or 0, need.ram_mb or 0
        # A run that asks for nothing fits even where reservations exceed what is there.
        if (cpu and cpu > self.cpu) or (ram_mb and ram_mb > self.ram_mb):
            return None
        return self._pick(need)

    def _pick(self, need: Constraints) -> list[int] | None:
        return pick_gpus(self.gpus, need.vram_mb or 0, self.alone)

    def _take(self, cpu: int, ram_mb: int, gpus: Iterable[int]) -> None:
        self.cpu -= cpu
        self.ram_mb -= ram_mb
        for gpu in gpus:
            del self.gpus[gpu]


def free_capacity(
    resources: dict[str, Any], tags: Iterable[str], held: Iterable[Constraints]
) -> Capacity:
    """Return what a worker has left.

    Args:
        resources: `cpu_cores`, `ram_mb` and `gpus` as its heartbeat tells them.
        tags: The worker's own tags.
        held: What the runs it holds have reserved, in the order they were assigned.
    """
    gpus: list[dict[str, Any]] = resources.get("gpus") or []
    gpu_tags: list[list[str]] = [gpu.get("tags") or [] for gpu in gpus]
    capacity = Capacity(
        tags=frozenset(tags).union(*gpu_tags),
        cpu=resources.get("cpu_cores") or 0,
        ram_mb=resources.get("ram_mb") or 0,
        gpus={gpu["id"]: gpu["vram_mb"] for gpu in gpus},
        alone=frozenset(gpu["id"] for gpu in gpus if MIG_TAG in (gpu.get("tags") or [])),
    )
    for need in held:
        capacity.occupy(need)
    return capacity


def choose_runs(pending: Iterable[PendingT], capacity: Capacity, max_runs: int) -> list[PendingT]:
    """Return the runs to assign, best first; what they need is taken from `capacity`.

    Args:
        pending: Runs that may be claimed, in the order they should be served.
        capacity: What the worker has left.
        max_runs: How many it asks for.
    """
    chosen: list[PendingT] = []
    if max_runs < 1:
        return chosen
    for run in pending:
        if capacity.tags.issuperset(run.tags) and capacity.reserve(run.constraints):
            chosen.append(run)
            if len(chosen) == max_runs:
                break
    return chosen
