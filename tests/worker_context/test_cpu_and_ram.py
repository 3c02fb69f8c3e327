"""Detection of CPU cores and memory within cgroups, on fixture trees."""

from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from gyoza.worker.worker_context.cgroups import CgroupLimits, own_limits
from gyoza.worker.worker_context.utils import detect_cpu_and_ram, detect_resources

MB = 1024 * 1024
UNLIMITED_V1 = "9223372036854771712"


@dataclass
class Machine:
    """A root folder with a `/proc` and cgroup mounts."""

    root: Path

    def process(self, cgroup: str, *mounts: str) -> None:
        proc = self.root / "proc/self"
        proc.mkdir(parents=True)
        (proc / "cgroup").write_text(cgroup)
        others = "22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/x rw"
        (proc / "mountinfo").write_text("\n".join([others, *mounts]) + "\n")

    def group(self, folder: str, **files: str) -> None:
        path = self.root / folder.lstrip("/")
        path.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (path / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


def v1(controllers: str, root: str = "/") -> str:
    return f"31 30 0:29 {root} /sys/fs/cgroup/{controllers} rw - cgroup cgroup rw,{controllers}"


def test_version_2_limits_are_the_tightest_of_the_own_cgroup_and_its_ancestors(
    machine: Machine,
) -> None:
    machine.process("0::/system.slice/worker.service\n", V2)
    machine.group("/sys/fs/cgroup/system.slice", cpu__max="150000 100000", memory__max="max")
    machine.group(
        "/sys/fs/cgroup/system.slice/worker.service", cpu__max="max 100000", memory__max="524288000"
    )
    assert own_limits(machine.root) == CgroupLimits(cpus=1.5, memory_bytes=524288000)


def test_version_1_limits_are_read_from_each_controller_s_mount(machine: Machine) -> None:
    machine.process(
        "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
        v1("cpu,cpuacct"),
        v1("memory"),
    )
    machine.group(
        "/sys/fs/cgroup/cpu,cpuacct/docker/abc",
        cpu__cfs_quota_us="250000",
        cpu__cfs_period_us="100000",
    )
    machine.group("/sys/fs/cgroup/cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    machine.group("/sys/fs/cgroup/memory/docker/abc", memory__limit_in_bytes=str(300 * MB))
    machine.group("/sys/fs/cgroup/memory", memory__limit_in_bytes=UNLIMITED_V1)
    assert own_limits(machine.root) == CgroupLimits(cpus=2.5, memory_bytes=300 * MB)


def test_in_a_container_the_mount_s_root_is_the_own_cgroup(machine: Machine) -> None:
    machine.process("4:memory:/docker/abc/inner\n", v1("memory", root="/docker/abc"))
    machine.group("/sys/fs/cgroup/memory", memory__limit_in_bytes=str(200 * MB))
    machine.group("/sys/fs/cgroup/memory/inner", memory__limit_in_bytes=str(100 * MB))
    assert own_limits(machine.root).memory_bytes == 100 * MB


@pytest.mark.parametrize("path", ["/host/path/of/it", "/../../elsewhere"])
def test_a_path_outside_the_mount_leaves_the_mounted_cgroup(machine: Machine, path: str) -> None:
    machine.process(f"0::{path}\n", V2.replace(" / /sys", " /docker/abc /sys"))
    machine.group("/sys/fs/cgroup", memory__max=str(50 * MB))
    assert own_limits(machine.root).memory_bytes == 50 * MB


def test_a_mount_point_with_a_space_is_found(machine: Machine) -> None:
    machine.process("0::/\n", V2.replace("/sys/fs/cgroup", "/my\\040groups"))
    machine.group("/my groups", memory__max=str(70 * MB))
    assert own_limits(machine.root).memory_bytes == 70 * MB


def test_version_1_counts_beside_an_empty_version_2(machine: Machine) -> None:
    unified = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    machine.process("4:memory:/w\n0::/w\n", v1("memory"), unified)
    machine.group("/sys/fs/cgroup/memory/w", memory__limit_in_bytes=str(90 * MB))
    machine.group("/sys/fs/cgroup/unified/w", cgroup__procs="1")
    assert own_limits(machine.root) == CgroupLimits(memory_bytes=90 * MB)


def test_without_readable_cgroups_there_are_no_limits(machine: Machine) -> None:
    assert own_limits(machine.root) == CgroupLimits()


@pytest.mark.parametrize("cgroup", ["nonsense\n", "0::/other\n", ""])
def test_strange_proc_files_mean_no_limits(machine: Machine, cgroup: str) -> None:
    machine.process(cgroup, V2)
    machine.group("/sys/fs/cgroup", memory__max="banana", cpu__max="0 0")
    assert own_limits(machine.root) == CgroupLimits()


def test_a_quota_is_rounded_down_but_never_to_zero_cores(machine: Machine) -> None:
    machine.process("0::/\n", V2)
    machine.group("/sys/fs/cgroup", cpu__max="50000 100000", memory__max=str(128 * MB + 5))
    assert detect_cpu_and_ram(machine.root) == (1, 128)


def test_limits_beyond_the_machine_are_ignored(machine: Machine) -> None:
    machine.process("4:memory:/\n2:cpu:/\n", v1("memory"), v1("cpu"))
    machine.group("/sys/fs/cgroup/memory", memory__limit_in_bytes=UNLIMITED_V1)
    machine.group(
        "/sys/fs/cgroup/cpu", cpu__cfs_quota_us="999999900000", cpu__cfs_period_us="100000"
    )
    cores, ram_mb = detect_cpu_and_ram(machine.root)
    assert 1 <= cores <= (psutil.cpu_count() or 1)
    assert ram_mb == psutil.virtual_memory().total // MB


def test_without_an_affinity_all_cores_count(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    assert detect_cpu_and_ram(machine.root)[0] == psutil.cpu_count()


def test_this_machine_has_a_core_and_memory() -> None:
    resources = detect_resources()
    assert resources.cpu_cores >= 1
    assert resources.ram_mb > 0
