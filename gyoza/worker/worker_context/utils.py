"""Finds out which hardware the worker itself may use."""

import os
from pathlib import Path

import psutil

from gyoza.worker.worker_context.cgroups import own_limits
from gyoza.worker.worker_context.nvidia import detect_gpus
from gyoza.worker.worker_context.types import Resources

_MB = 1024 * 1024


def detect_resources() -> Resources:
    """Detect the CPU cores, the memory and the GPUs that this process may use.

    Blocks for as long as the GPU driver takes to answer; never fails for want of a GPU.
    """
    cpu_cores, ram_mb = detect_cpu_and_ram()
    return Resources(cpu_cores=cpu_cores, ram_mb=ram_mb, gpus=detect_gpus())


def detect_cpu_and_ram(root: Path = Path("/")) -> tuple[int, int]:
    """Detect CPU cores and memory in MB within the limits of this process.

    Args:
        root: Where `/proc` and the cgroup mounts are looked for.

    Returns:
        Cores, at least 1, a quota rounded down; and MB of memory.
    """
    limits = own_limits(root)
    cores = float(_schedulable_cpus())
    memory = psutil.virtual_memory().total
    # Unlimited is written as a number near 2**63 in places: the smaller of the two is always right.
    if limits.cpus is not None:
        cores = min(cores, limits.cpus)
    if limits.memory_bytes is not None:
        memory = min(memory, limits.memory_bytes)
    return max(1, int(cores)), memory // _MB


def _schedulable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: what taskset or a cpuset leaves us
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1
