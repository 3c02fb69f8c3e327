"""What a worker is and does, as its heartbeats tell the server."""

from dataclasses import dataclass, field
from typing import Any

from gyoza.models import OpRunState


@dataclass
class GPU:
    """Representation of a single GPU.

    Attributes:
        id: Index of the GPU as the driver counts them, from 0; of MIG instance m of GPU n it is
            100 * (n + 1) + m.
        vram_mb: Its memory in MB.
        tags: What a run can ask for, such as `cuda` and `nvidia-a100`; `mig` for a MIG instance.
    """

    id: int
    vram_mb: int
    tags: list[str] = field(default_factory=list[str])

    @property
    def device(self) -> str:
        """What container engines call it: its UUID where the driver tells one, else its index."""
        return str(self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-compatible form."""
        return {"id": self.id, "vram_mb": self.vram_mb, "tags": list(self.tags)}


@dataclass
class NamedGPU(GPU):
    """A GPU with the name that it keeps whatever happens to the driver's numbering.

    Attributes:
        uuid: `GPU-…`, or `MIG-…` for a MIG instance; its place where the driver tells none.
    """

    uuid: str = ""

    @property
    def device(self) -> str:
        """See `GPU.device`."""
        return self.uuid or super().device


@dataclass
class Resources:
    """Hardware resources available on the worker.

    Attributes:
        cpu_cores: Number of CPU cores.
        ram_mb: Memory in MB.
        gpus: The GPUs, ordered by id.
    """

    cpu_cores: int = 0
    ram_mb: int = 0
    gpus: list[GPU] = field(default_factory=list[GPU])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-compatible form."""
        return {
            "cpu_cores": self.cpu_cores,
            "ram_mb": self.ram_mb,
            "gpus": [gpu.to_dict() for gpu in self.gpus],
        }


@dataclass
class RunningOp:
    """One run that the worker executes, with the server's last word on it.

    Attributes:
        id: The run's id.
        image: Docker image.
        inputs: The run's inputs.
        constraints: What it reserves: `cpu`, `ram_mb`, `vram_mb`.
        state: An `OpRunState`; None until the server has told one.
    """

    id: str
    image: str
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    constraints: dict[str, Any] = field(default_factory=dict[str, Any])
    state: str | None = None

    def to_heartbeat_dict(self) -> dict[str, Any]:
        """Return what a heartbeat says of the run: `id`, `image`, `inputs`, `constraints`."""
        return {
            "id": self.id,
            "image": self.image,
            "inputs": self.inputs,
            "constraints": self.constraints,
        }


@dataclass
class WorkerContext:
    """The worker's identity, resources and running ops.

    Not thread-safe: its methods are called from the worker's one Trio thread only.

    A run can be listed twice for a moment, while the worker cleans up after an attempt it lost and
    already has the next one. Removing takes the older entry, states are those of the newer.

    Attributes:
        worker_id: The worker's name.
        resources: Hardware resources available.
        tags: What a run can ask for besides resources.
        running_ops: The runs in execution, oldest first.
    """

    worker_id: str = ""
    resources: Resources = field(default_factory=Resources)
    tags: list[str] = field(default_factory=list[str])
    running_ops: list[RunningOp] = field(default_factory=list[RunningOp])

    def add_running_op(
        self,
        oprun_id: str,
        image: str,
        inputs: dict[str, Any],
        constraints: dict[str, Any] | None = None,
    ) -> None:
        """List a run as running; its state is unknown until `set_run_state`."""
        self.running_ops.append(RunningOp(oprun_id, image, inputs, constraints or {}))

    def remove_running_op(self, oprun_id: str) -> None:
        """Take a run off the list; nothing if it is not there."""
        for position, op in enumerate(self.running_ops):
            if op.id == oprun_id:
                del self.running_ops[position]
                return

    def set_run_state(self, run_id: str, state: str) -> None:
        """Note the state the server told for a run; nothing if it is not listed."""
        if op := self._find(run_id):
            op.state = state

    def get_run_state(self, run_id: str) -> str | None:
        """Return the last state the server told, or None if the run or its state is unknown."""
        op = self._find(run_id)
        return op.state if op else None

    def is_run_cancelled(self, run_id: str) -> bool:
        """Return whether the server has said that the run is cancelled."""
        return self.get_run_state(run_id) == OpRunState.CANCELLED

    def clear_running_ops(self) -> None:
        """Empty the list of running ops."""
        self.running_ops.clear()

    def to_heartbeat_payload(self) -> dict[str, Any]:
        """Return the body of a heartbeat: the arguments of `gyoza_client.heartbeat`."""
        return {
            "worker_id": self.worker_id,
            "resources": self.resources.to_dict(),
            "tags": list(self.tags),
            "running_ops": [op.to_heartbeat_dict() for op in self.running_ops],
        }

    def _find(self, run_id: str) -> RunningOp | None:
        return next((op for op in reversed(self.running_ops) if op.id == run_id), None)
