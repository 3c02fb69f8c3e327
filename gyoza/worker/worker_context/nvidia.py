"""NVIDIA GPUs, asked of the driver by NVML; the only module that knows pynvml."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

from gyoza.models import MIG_TAG
from gyoza.worker.worker_context.types import GPU, NamedGPU

logger = logging.getLogger(__name__)

_MB = 1024 * 1024
_MIG_STRIDE = 100  # ids of one GPU's MIG instances; there are up to seven
# Words of a product name that tell the size and kind of memory or the form factor.
_NOT_MODEL = re.compile(r"nvidia|\d+gb|hbm\d\w*|sxm\d*|pcie|nvl")


T = TypeVar("T")


class _Memory(Protocol):
    """The memory of a GPU in bytes."""

    @property
    def total(self) -> int: ...


class _Nvml(Protocol):
    """What is used of the module pynvml, which comes without types."""

    NVMLError: type[Exception]
    NVMLError_LibraryNotFound: type[Exception]
    NVMLError_FunctionNotFound: type[Exception]
    NVMLError_NotFound: type[Exception]
    NVMLError_NotSupported: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> _Memory: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...
    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any: ...


def detect_gpus(nvml: _Nvml | None = None) -> list[GPU]:
    """Return the GPUs that the driver knows and that answer.

    A machine without a driver has none. A driver that fails, or a GPU that is lost, costs a warning
    and what it was asked for, never the worker.

    A GPU in MIG mode is not there itself, as nothing can be computed on it: its instances are.

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
            gpus += _devices(nvml, index)
        except nvml.NVMLError as error:
            logger.warning("GPU %d does not answer (%s): it is left out.", index, error)
    return sorted(gpus, key=lambda gpu: gpu.id)


def _devices(nvml: _Nvml, index: int) -> list[GPU]:
    """Return what can be handed out of a GPU: itself, or its MIG instances."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    tags = ["cuda", model_tag(nvml.nvmlDeviceGetName(handle))]
    mode, _after_reset = _supported(nvml, nvml.nvmlDeviceGetMigMode, handle, (0, 0))
    if not mode:
        return [_device(nvml, handle, index, tags, str(index))]
    return [
        _device(
            nvml,
            instance,
            _MIG_STRIDE * (index + 1) + number,
            [*tags, MIG_TAG],
            f"{index}:{number}",
        )
        for number, instance in _mig_instances(nvml, handle)
    ]


def _mig_instances(nvml: _Nvml, handle: Any) -> Iterator[tuple[int, Any]]:
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(nvml.NVMLError_NotFound):  # numbers of instances that nobody has made
            yield number, nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)


def _device(nvml: _Nvml, handle: Any, number: int, tags: list[str], place: str) -> GPU:
    vram_mb = nvml.nvmlDeviceGetMemoryInfo(handle).total // _MB
    return NamedGPU(number, vram_mb, tags, _supported(nvml, nvml.nvmlDeviceGetUUID, handle, place))


def _supported(nvml: _Nvml, ask: Callable[[Any], T], handle: Any, otherwise: T) -> T:
    try:
        return ask(handle)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):  # an old driver
        return otherwise


def model_tag(name: str) -> str:
    """Return the tag for a product name: `NVIDIA A100-SXM4-80GB` is `nvidia-a100`.

    The words of the name in lower case after `nvidia`, without those for memory and form factor.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "-".join(["nvidia", *(word for word in words if not _NOT_MODEL.fullmatch(word))])
