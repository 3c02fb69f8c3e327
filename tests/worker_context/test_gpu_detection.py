"""Detection of NVIDIA GPUs, with a fake of the module pynvml."""

import logging
from dataclasses import dataclass, field

import pytest

from gyoza.worker.worker_context import GPU
from gyoza.worker.worker_context.nvidia import detect_gpus, model_tag

GB = 1024**3


class FakeNvmlError(Exception):
    pass


class FakeLibraryNotFound(FakeNvmlError):
    pass


@dataclass
class FakeMemory:
    total: int


@dataclass
class FakeNvml:
    """Answers like pynvml; a call in `broken` raises, `GPU n` breaks that GPU."""

    gpus: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    broken: dict[str, FakeNvmlError] = field(default_factory=dict[str, FakeNvmlError])
    shut_down: int = 0
    NVMLError: type[Exception] = FakeNvmlError
    NVMLError_LibraryNotFound: type[Exception] = FakeLibraryNotFound

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

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> FakeMemory:
        self._answer(f"memory {handle}")
        return FakeMemory(self.gpus[handle][1])

    def nvmlDeviceGetName(self, handle: int) -> str:
        self._answer(f"name {handle}")
        return self.gpus[handle][0]


TWO = [("NVIDIA H200", 141 * GB), ("NVIDIA A100-SXM4-80GB", 80 * GB)]
H200 = GPU(0, 141 * 1024, ["cuda", "nvidia-h200"])
A100 = GPU(1, 80 * 1024, ["cuda", "nvidia-a100"])


def test_gpus_have_their_index_memory_and_tags() -> None:
    nvml = FakeNvml(TWO)
    assert detect_gpus(nvml) == [H200, A100]
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


@pytest.mark.parametrize("call", ["handle 0", "memory 0", "name 0"])
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
