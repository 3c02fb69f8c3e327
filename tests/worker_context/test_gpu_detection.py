"""Detection of NVIDIA GPUs and MIG instances, with a scripted NVML of the shape of pynvml."""

import logging
from dataclasses import dataclass, field

import pynvml
import pytest

from gyoza.worker.worker_context import GPU, Resources
from gyoza.worker.worker_context.nvidia import detect_gpus, model_tag
from gyoza.worker.worker_context.types import NamedGPU

GB = 1024**3


class FakeNvmlError(Exception):
    pass


class FakeLibraryNotFound(FakeNvmlError):
    pass


class FakeNotFound(FakeNvmlError):
    pass


class FakeNotSupported(FakeNvmlError):
    pass


class FakeFunctionNotFound(FakeNvmlError):
    pass


@dataclass
class FakeMemory:
    total: int


Handle = int | tuple[int, int]
"""A GPU, or a MIG instance of one."""


@dataclass
class FakeNvml:
    """Answers like pynvml; a call in `broken` raises, `GPU n` breaks that GPU.

    Attributes:
        gpus: Name and memory of each.
        mig: Memory of the MIG instances of GPUs in MIG mode; None is a place without one.
    """

    gpus: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    mig: dict[int, list[int | None]] = field(default_factory=dict[int, list[int | None]])
    broken: dict[str, FakeNvmlError] = field(default_factory=dict[str, FakeNvmlError])
    shut_down: int = 0
    NVMLError: type[Exception] = FakeNvmlError
    NVMLError_LibraryNotFound: type[Exception] = FakeLibraryNotFound
    NVMLError_NotFound: type[Exception] = FakeNotFound
    NVMLError_NotSupported: type[Exception] = FakeNotSupported
    NVMLError_FunctionNotFound: type[Exception] = FakeFunctionNotFound

    def _answer(self, call: str) -> None:
        if call in self.broken:
            raise self.broken[call]

    def nvmlInit(self) -> None:
        self._answer("init")

    def nvmlShutdown(self) -> None:
        self.shut_down += 1
        self._answer("shutdown")

    def nvmlDeviceGetCount(self) -> int:
        self._answer("count")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._answer(f"handle {index}")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> FakeMemory:
        self._answer(f"memory {handle}")
        if isinstance(handle, int):
            return FakeMemory(self.gpus[handle][1])
        size = self.mig[handle[0]][handle[1]]
        assert size is not None
        return FakeMemory(size)

    def nvmlDeviceGetName(self, handle: int) -> str:
        self._answer(f"name {handle}")
        return self.gpus[handle][0]

    def nvmlDeviceGetUUID(self, handle: Handle) -> str:
        self._answer(f"uuid {handle}")
        return f"GPU-{handle}" if isinstance(handle, int) else f"MIG-{handle[0]}-{handle[1]}"

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        self._answer(f"mode {handle}")
        if not self.mig:
            raise FakeNotSupported
        on = int(handle in self.mig)
        return [on, 1 - on]  # what it will be after a reset is another thing

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return len(self.mig[handle])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, index: int) -> Handle:
        if self.mig[handle][index] is None:
            raise FakeNotFound
        return handle, index


TWO = [("NVIDIA H200", 141 * GB), ("NVIDIA A100-SXM4-80GB", 80 * GB)]
H200 = NamedGPU(0, 141 * 1024, ["cuda", "nvidia-h200"], "GPU-0")
A100 = NamedGPU(1, 80 * 1024, ["cuda", "nvidia-a100"], "GPU-1")


def test_the_module_has_all_that_is_used_of_it() -> None:
    used = [name for name in dir(FakeNvml) if name.startswith(("nvml", "NVML"))]
    assert len(used) == 15
    assert all(hasattr(pynvml, name) for name in used)


def test_gpus_have_their_index_memory_tags_and_uuid() -> None:
    nvml = FakeNvml(TWO)
    found = detect_gpus(nvml)
    assert found == [H200, A100]
    assert [gpu.device for gpu in found] == ["GPU-0", "GPU-1"]
    assert nvml.shut_down == 1


def test_a_machine_without_a_driver_has_no_gpus_and_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nvml = FakeNvml(broken={"init": FakeLibraryNotFound("no library")})
    assert detect_gpus(nvml) == []
    assert not caplog.records
    assert nvml.shut_down == 0


@pytest.mark.parametrize("call", ["init", "count"])
def test_a_broken_driver_costs_one_warning(call: str, caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml(TWO, broken={call: FakeNvmlError("driver mismatch")})
    assert detect_gpus(nvml) == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "driver mismatch" in caplog.text
    assert nvml.shut_down == (call != "init")


def test_a_server_is_told_the_same_of_a_gpu_with_a_uuid_as_of_one_without() -> None:
    plain = GPU(0, 141 * 1024, ["cuda", "nvidia-h200"])
    assert H200.to_dict() == plain.to_dict()
    assert Resources(1, 2, [H200]).to_dict() == Resources(1, 2, [plain]).to_dict()


@pytest.mark.parametrize("why", [FakeNotSupported, FakeFunctionNotFound])
def test_an_old_driver_without_uuids_and_mig_leaves_the_indexes(why: type[FakeNvmlError]) -> None:
    silent = {f"{call} {gpu}": why() for call in ("uuid", "mode") for gpu in (0, 1)}
    assert [gpu.device for gpu in detect_gpus(FakeNvml(TWO, broken=silent))] == ["0", "1"]
    assert GPU(3, 100).device == "3"


def test_a_gpu_in_mig_mode_is_its_instances() -> None:
    nvml = FakeNvml(TWO, mig={1: [None, 40 * GB, None, 20 * GB]})
    tags = ["cuda", "nvidia-a100", "mig"]
    assert detect_gpus(nvml) == [
        H200,
        NamedGPU(201, 40 * 1024, tags, "MIG-1-1"),
        NamedGPU(203, 20 * 1024, tags, "MIG-1-3"),
    ]
    assert [gpu.id for gpu in detect_gpus(FakeNvml(TWO, mig={0: [GB, GB]}))] == [1, 100, 101]


def test_a_gpu_in_mig_mode_without_instances_cannot_be_used() -> None:
    assert detect_gpus(FakeNvml(TWO, mig={0: [None] * 7})) == [A100]


def test_mig_instances_without_uuids_are_named_by_their_place() -> None:
    broken: dict[str, FakeNvmlError] = {"uuid (1, 2)": FakeNotSupported()}
    nvml = FakeNvml(TWO, mig={1: [None, None, GB]}, broken=broken)
    assert [gpu.device for gpu in detect_gpus(nvml)] == ["GPU-0", "1:2"]


@pytest.mark.parametrize("call", ["handle 0", "memory 0", "name 0", "mode 0", "uuid 0"])
def test_a_lost_gpu_is_left_out_with_one_warning(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    nvml = FakeNvml(TWO, broken={call: FakeNvmlError("GPU is lost")})
    assert detect_gpus(nvml) == [A100]
    assert len(caplog.records) == 1
    assert "GPU 0" in caplog.text
    assert nvml.shut_down == 1


def test_a_failing_shutdown_is_no_matter() -> None:
    assert detect_gpus(FakeNvml(TWO, broken={"shutdown": FakeNvmlError("gone")})) == [H200, A100]


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("NVIDIA H200", "nvidia-h200"),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100"),
        ("NVIDIA A100 80GB PCIe", "nvidia-a100"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100"),
        ("NVIDIA H100 NVL", "nvidia-h100"),
        ("Tesla V100-SXM2-16GB", "nvidia-tesla-v100"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "nvidia-geforce-rtx-4070-ti-super"),
        ("", "nvidia"),
    ],
)
def test_the_model_tag_is_the_name_without_memory_and_form_factor(name: str, tag: str) -> None:
    assert model_tag(name) == tag
