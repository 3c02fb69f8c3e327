"""NVIDIA GPUs, asked of the driver by NVML; the only module that knows pynvml."""

import logging
import re
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol, cast

from gyoza.worker.worker_context.types import GPU

logger = logging.getLogger(__name__)

_MB = 1024 * 1024
# Words of a product name that tell the size and kind of memory or the form factor.
_NOT_MODEL = re.compile(r"nvidia|\d+gb|hbm\d\w*|sxm\d*|pcie|nvl")


class _Memory(Protocol):
    """The memory of a GPU in bytes."""

    @property
    def total(self) -> int: ...


class _Nvml(Protocol):
    """What is used of the module pynvml, which comes without types."""

    NVMLError: type[Exception]
    NVMLError_LibraryNotFound: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> _Memory: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...


def detect_gpus(nvml: _Nvml | None = None) -> list[GPU]:
    """Return the GPUs that the driver knows and that answer.

    A machine without a driver has none. A driver that fails, or a GPU that is lost, costs a warning
    and what it was asked for, never the worker.

    Args:
        nvml: The module pynvml; imported when needed, since it is large.
    """
    nvml = nvml or cast("_Nvml", import_module("pynvml"))
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return []
    except nvml.NVMLError as error:
        logger.warning("The GPU driver does not answer (%s): going on without GPUs.", error)
        return []
    try:
        return _enumerate(nvml)
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _enumerate(nvml: _Nvml) -> list[GPU]:
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        logger.warning("The GPUs cannot be counted (%s): going on without GPUs.", error)
        return []
    gpus: list[GPU] = []
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            vram_mb = nvml.nvmlDeviceGetMemoryInfo(handle).total // _MB
            gpus.append(GPU(index, vram_mb, ["cuda", model_tag(nvml.nvmlDeviceGetName(handle))]))
        except nvml.NVMLError as error:
            logger.warning("GPU %d does not answer (%s): it is left out.", index, error)
    return gpus


def model_tag(name: str) -> str:
    """Return the tag for a product name: `NVIDIA A100-SXM4-80GB` is `nvidia-a100`.

    The words of the name in lower case after `nvidia`, without those for memory and form factor.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "-".join(["nvidia", *(word for word in words if not _NOT_MODEL.fullmatch(word))])
