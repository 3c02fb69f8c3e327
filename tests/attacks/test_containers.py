"""An op that tries to get out of its container, or to take the machine with it."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio

from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.errors import PolicyRefused, SettingsError
from gyoza.worker.policy import ContainerPolicy
from tests.containers.daemon import daemon
from tests.e2e.conftest import OpenSystem, busybox_image, open_system, python_image

__all__ = ["busybox_image", "open_system", "python_image"]

pytestmark = pytest.mark.docker

STATUS = """
import json, os, resource
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
shm = os.statvfs("/dev/shm")
json.dump({
    "capabilities": int(status["CapBnd"], 16),
    "effective": int(status["CapEff"], 16),
    "no_new_privs": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "shm_mb": shm.f_blocks * shm.f_frsize // 2**20,
    "oom_score_adj": int(open("/proc/self/oom_score_adj").read()),
    "user": [os.getuid(), os.getgid()],
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "mounts": [line.split()[1] for line in open("/proc/mounts")],
    "devices": sorted(os.listdir("/dev")),
    "variables": dict(os.environ),
    "processes": [name for name in os.listdir("/proc") if name.isdigit()],
}, open(os.environ["GYOZA_OUTPUT_PATH"], "w"))
"""

# The numbers of linux/capability.h: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID,
# NET_BIND_SERVICE.
HARMLESS = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 10))


async def seen_by_an_op(
    open_system: OpenSystem, image: str, policy: ContainerPolicy | None = None, **settings: Any
) -> dict[str, Any]:
    """Return what an op finds out about its container."""
    policy = policy or ContainerPolicy()
    async with open_system(policy=policy, **settings) as system:
        run = await system.end_of(await system.run(image, command=["python", "-c", STATUS]))
    assert run["state"] == "COMPLETED", run["execution_summary"]
    return run["outputs"]


async def said_by(open_system: OpenSystem, image: str, script: str, **policy: Any) -> str:
    """Return the log of a shell script, whose two outputs are one: the engine keeps no order
    between two."""
    async with open_system(policy=ContainerPolicy(**policy)) as system:
        run_id = await system.run(image, command=["sh", "-c", f"exec 2>&1; {script}"])
        await system.end_of(run_id)
        return await system.client.get_logs(run_id)


async def test_an_op_that_looks_for_privileges_finds_few(
    open_system: OpenSystem, python_image: str
) -> None:
    with trio.fail_after(200):
        seen = await seen_by_an_op(open_system, python_image)
    assert seen["capabilities"] == seen["effective"] == HARMLESS
    assert seen["no_new_privs"] == "1"
    assert seen["seccomp"] == "2"  # a filter
    assert seen["core"] == [0, 0]
    assert seen["shm_mb"] == 64
    assert seen["oom_score_adj"] == 500
    assert "/gyoza" in seen["mounts"]
    assert not any(
        device.startswith(("sd", "vd", "nvme", "mem", "kmsg")) for device in seen["devices"]
    )
    assert len(seen["processes"]) <= 3  # init and itself: not those of the machine


async def test_an_op_that_looks_for_the_workers_variables_and_keys(
    open_system: OpenSystem, python_image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OF_THE_WORKER", "its own business")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy.example.org")
    monkeypatch.setenv("GYOZA_API_KEY", "key-in-the-environment")
    (tmp_path / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://p:1"}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with trio.fail_after(200):
        seen = await seen_by_an_op(open_system, python_image)
    assert {name for name in seen["variables"] if name.startswith("GYOZA_")} == {
        *("GYOZA_INPUT_PATH", "GYOZA_INPUT_JSON_PATH", "GYOZA_OUTPUT_PATH"),
        *("GYOZA_RUN_ID", "GYOZA_ATTEMPT"),
    }
    others = {name for name in seen["variables"] if not name.startswith("GYOZA_")}
    assert others <= {"PATH", "HOME", "HOSTNAME", "NVIDIA_VISIBLE_DEVICES", "LC_CTYPE"} | {
        name for name in others if name.startswith(("PYTHON", "LD_LIBRARY"))
    }


async def test_an_op_that_looks_into_its_own_description_on_the_engine_for_the_key(
    open_system: OpenSystem, busybox_image: str
) -> None:
    with trio.fail_after(200):
        async with open_system() as system:
            run_id = await system.run(busybox_image, command=["sleep", "1000"])
            await system.until(run_id, lambda run: run["state"] == "RUNNING")
            with daemon() as engine:
                described = engine.get(f"/containers/gyoza-{run_id}-1/json").text
                top = engine.get(f"/containers/gyoza-{run_id}-1/top").text
            await system.client.cancel_run(run_id)
            key = system.client.connection.api_key
    assert run_id in described
    assert key
    assert key not in described + top


async def test_an_op_that_forks_without_end(open_system: OpenSystem, busybox_image: str) -> None:
    script = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo never"
    with trio.fail_after(200):
        said = await said_by(open_system, busybox_image, script, pids_limit=20)
    assert "can't fork" in said
    assert "never" not in said


async def test_an_op_that_makes_a_device(open_system: OpenSystem, busybox_image: str) -> None:
    with trio.fail_after(200):
        said = await said_by(open_system, busybox_image, "mknod /gyoza/disk b 8 0; echo $?")
    assert said.endswith("Operation not permitted\n1\n")


async def test_an_op_that_mounts_and_that_changes_the_kernel(
    open_system: OpenSystem, busybox_image: str
) -> None:
    script = (
        "mount -t tmpfs none /mnt; mount -o remount,rw /sys; "
        "echo 1 > /proc/sys/kernel/sysrq; echo b > /proc/sysrq-trigger; chroot / true; "
        "ping -c 1 -W 1 127.0.0.1 >/dev/null; echo still here"
    )
    with trio.fail_after(200):
        said = await said_by(open_system, busybox_image, script)
    lines = said.splitlines()
    assert lines[-1] == "still here"
    assert len(lines) >= 6, said  # each of them has failed with a sentence


async def test_an_op_that_writes_where_everything_is_read_only(
    open_system: OpenSystem, busybox_image: str
) -> None:
    script = "echo a > /anywhere || echo b > /tmp/small && echo c > /gyoza/own && cat /tmp/small"
    with trio.fail_after(200):
        said = await said_by(open_system, busybox_image, script, read_only=True)
    assert "Read-only file system" in said
    assert said.endswith("b\n")


async def test_an_op_that_calls_home_without_a_network(
    open_system: OpenSystem, python_image: str
) -> None:
    with trio.fail_after(200):
        policy = ContainerPolicy(network="none", user="1234:5678", shm_mb=8)
        seen = await seen_by_an_op(open_system, python_image, policy)
    assert seen["interfaces"] == ["lo"]
    assert seen["user"] == [1234, 5678]
    assert seen["effective"] == 0
    assert seen["shm_mb"] == 8


async def test_a_worker_whose_policy_names_a_runtime_that_the_engine_lacks(
    open_system: OpenSystem,
) -> None:
    refused = pytest.RaisesExc(SettingsError, match="has no runtime not-there")
    with trio.fail_after(200), pytest.RaisesGroup(refused, flatten_subgroups=True):
        async with open_system(policy=ContainerPolicy(runtime="not-there")):
            pass


async def test_an_image_whose_health_check_runs_commands(busybox_image: str) -> None:
    spec = ContainerSpec(name=f"gyoza-test-{uuid4().hex}", image=busybox_image, command=["true"])
    with trio.fail_after(200):
        async with open_docker_engine() as engine:
            container_id = await engine.create(spec)
            try:
                with daemon() as api:
                    config = json.loads(api.get(f"/containers/{container_id}/json").text)
            finally:
                with trio.move_on_after(20, shield=True):
                    await engine.remove(container_id)
    assert config["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    host = config["HostConfig"]
    assert not host["Privileged"]
    assert [host[f"{kind}Mode"] for kind in ("Pid", "UTS", "Userns")] == ["", "", ""]
    assert host["Binds"] is None
    assert host["Devices"] in (None, [])


@pytest.mark.parametrize("path", ["/var/run/docker.sock", "/run", "/", "/var/run/../run"])
async def test_a_pipeline_step_that_mounts_the_engines_socket(
    busybox_image: str, path: str
) -> None:
    spec = ContainerSpec(name="gyoza-test-never", image=busybox_image, volumes={path: "/mnt"})
    with trio.fail_after(200):
        async with open_docker_engine() as engine:
            with pytest.raises(PolicyRefused, match="engine's socket"):
                await engine.create(spec)


async def test_a_pipeline_step_that_mounts_a_link_to_the_engines_socket(
    busybox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/var/run")
    spec = ContainerSpec(
        name="gyoza-test-never", image=busybox_image, volumes={str(tmp_path / "link"): "/mnt"}
    )
    with trio.fail_after(200):
        async with open_docker_engine() as engine:
            with pytest.raises(PolicyRefused, match="engine's socket"):
                await engine.create(spec)
