"""What the figures were measured on."""

import os
import platform
from pathlib import Path

import psutil

from gyoza.worker.containers.docker_engine import open_docker_engine


async def describe_machine() -> dict[str, str]:
    """Return what tells this machine and engine from others.

    Raises:
        EngineUnavailable: If no engine answers.
    """
    async with open_docker_engine() as engine:
        info = await engine.info()
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total / 2**30
    return {
        "machine": f"{_processor()}, {cores} cores, {memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "engine": f"Docker {info.version}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
