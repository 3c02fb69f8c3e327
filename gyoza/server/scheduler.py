"""Which pending run fits which worker; pure functions."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Self

from gyoza.models import MIG_TAG, Constraints, pick_gpus


@dataclass(frozen=True)
class Needs:
    """What a run asks of its worker.

    Attributes:
        constraints: Hardware, reserved for the whole run.
        tags: Tags that the worker must have.
    """

    constraints: Constraints
    tags: frozenset[str] = frozenset()

    @classmethod
    @lru_cache(maxsize=10_000)
    def of(cls, constraints: str, tags: str) -> Self:
        """Read both from the JSON that the database holds."""
        return cls(Constraints.from_dict(json.loads(constraints)), frozenset(json.loads(tags)))


@dataclass
class Capacity:
    """What a worker has left, or has when it is idle.

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

    @classmethod
    def of_worker(cls, resources: dict[str, Any], tags: Iterable[str]) -> Self:
        """Return what a worker has when it is idle.

        Args:
            resources: `cpu_cores`, `ram_mb` and `gpus` as its heartbeat tells them.
            tags: The worker's own tags.
        """
        gpus: list[dict[str, Any]] = resources.get("gpus") or []
        gpu_tags: list[list[str]] = [gpu.get("tags") or [] for gpu in gpus]
        return cls(
            tags=frozenset(tags).union(*gpu_tags),
            cpu=resources.get("cpu_cores") or 0,
            ram_mb=resources.get("ram_mb") or 0,
            gpus={gpu["id"]: gpu["vram_mb"] for gpu in gpus},
            alone=frozenset(gpu["id"] for gpu in gpus if MIG_TAG in (gpu.get("tags") or [])),
        )

    def to_text(self) -> str:
        """Return it as JSON, the same text for the same capacity."""
        gpus = sorted(self.gpus.items())
        return json.dumps([sorted(self.tags), self.cpu, self.ram_mb, gpus, sorted(self.alone)])

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what was written by `to_text`."""
        tags, cpu, ram_mb, gpus, alone = json.loads(text)
        return cls(frozenset(tags), cpu, ram_mb, dict(gpus), frozenset(alone))

    def less(self, held: Iterable[Constraints]) -> Self:
        """Return what is left of it beside runs, given in the order they were assigned."""
        left = replace(self, gpus=dict(self.gpus))
        for need in held:
            left._occupy(need)
        return left

    def limited_to(self, allows: Callable[[str], bool]) -> Self:
        """Return it without the tags that a key does not allow."""
        return replace(self, tags=frozenset(filter(allows, self.tags)))

    def fits(self, needs: Needs) -> bool:
        """Return whether a run could be had."""
        return self.tags >= needs.tags and not self.lacks(needs.constraints)

    def lacks(self, need: Constraints) -> frozenset[str]:
        """Return the names of the constraints that are not met."""
        cpu, ram_mb = need.cpu or 0, need.ram_mb or 0
        # A run that asks for nothing fits even where reservations exceed what is there.
        missing = {
            "cpu": cpu and cpu > self.cpu,
            "ram_mb": ram_mb and ram_mb > self.ram_mb,
            "vram_mb": self._pick(need) is None,
        }
        return frozenset(name for name, lacking in missing.items() if lacking)

    def reserve(self, need: Constraints) -> bool:
        """Take what a run needs; without all of it, take nothing and return False."""
        if self.lacks(need):
            return False
        self._occupy(need)
        return True

    def spares(self, kept: Constraints, need: Constraints) -> bool:
        """Return whether a run takes nothing that has to be kept for another one.

        Args:
            kept: What the other one needs, more than there is now.
            need: What the run needs, no more than there is now.
        """
        missing = self.lacks(kept)
        if any(getattr(need, name) for name in missing):
            return False
        return self.less([need]).lacks(kept) == missing

    def shortage(self, need: Constraints) -> float:
        """Return how far it is from having room for a run that it fits when idle; 0 for room."""
        missing = self.lacks(need)
        parts = [1.0] if "vram_mb" in missing else []
        for name in missing - {"vram_mb"}:
            asked: float = getattr(need, name)
            parts.append((asked - getattr(self, name)) / asked)
        return sum(parts)

    def _occupy(self, need: Constraints) -> None:
        """Subtract what a run holds, whether or not there is still that much."""
        chosen = self._pick(need)
        self.cpu -= need.cpu or 0
        self.ram_mb -= need.ram_mb or 0
        for gpu in list(self.gpus) if chosen is None else chosen:
            del self.gpus[gpu]

    def _pick(self, need: Constraints) -> list[int] | None:
        return pick_gpus(self.gpus, need.vram_mb or 0, self.alone)
