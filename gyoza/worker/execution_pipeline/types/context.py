"""Execution context for the pipeline."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ExecutionContext:
    """What the steps of one run share and change.

    Keys of `extras` with a meaning for the built-in steps: `command` (list of arguments in place of
    the image's), `timeout_s` (seconds the container may run), `grace_s` (seconds between the stop
    signal and SIGKILL), `gyoza_dir` (the directory on the host that the container shares, set by
    `PrepareInputs`), `gpu_ids` and `oom_killed` (set by `RunContainer`).

    Attributes:
        oprun_id: The run's id; empty for a run that no server knows.
        image: Image of the container.
        constraints: Hardware limits: `cpu` in cores, `ram_mb` and `vram_mb` in MB.
        inputs: Plain data for the op.
        outputs: Plain data from the op, after `complete_oprun`.
        env_vars: The container's environment.
        volumes: Mounts, host path to container path.
        logs: The end of the container's output, up to 1 MiB.
        exit_code: The container's exit code; None until it has exited.
        extras: For steps to tell each other anything else.
    """

    oprun_id: str = ""
    image: str = ""
    constraints: dict[str, Any] = field(default_factory=dict[str, Any])
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    env_vars: dict[str, str] = field(default_factory=dict[str, str])
    volumes: dict[str, str] = field(default_factory=dict[str, str])
    logs: str = ""
    exit_code: int | None = None
    extras: dict[str, Any] = field(default_factory=dict[str, Any])
