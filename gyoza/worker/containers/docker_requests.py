"""What the Engine API wants to hear: a container's description as JSON."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gyoza.worker.containers.engine import LOG_DRIVER, ContainerSpec
from gyoza.worker.containers.gpu_variables import with_gpus
from gyoza.worker.errors import PolicyRefused

MB = 1024 * 1024
SOCKETS = ("/var/run/docker.sock", "/run/containerd/containerd.sock")
# Two files of half a gigabyte: a container can take no more of the disk, and only beyond the first
# its start is lost.
LOG_CONFIG = {
    "Type": LOG_DRIVER,
    "Config": {"max-size": "500m", "max-file": "2", "compress": "false"},
}


# What programs need that begin as root and give that up; nothing that reaches beyond the container.
# Left out of Docker's own choice: NET_RAW (forged packets), MKNOD, AUDIT_WRITE, SETFCAP, SETPCAP,
# SYS_CHROOT.
CAPABILITIES = [
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"),
    *("KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"),
]
# No dumps of memory onto the host. Open files stay as the engine limits them: a number of our own
# could be more than it may give, and then nothing starts.
ULIMITS = [{"Name": "core", "Soft": 0, "Hard": 0}]
TMPFS = {"/tmp": "rw,nosuid,nodev,size=64m,mode=1777"}


def container_body(spec: ContainerSpec) -> dict[str, Any]:
    """Return the body of `POST /containers/create`."""
    return {
        "Image": spec.image,
        "Cmd": spec.command,
        "Env": [f"{name}={value}" for name, value in with_gpus(spec.env, spec.gpus).items()],
        "Labels": dict(spec.labels),
        "Healthcheck": {"Test": ["NONE"]},  # it would execute commands that nobody asked for
        **({"User": spec.user} if spec.user else {}),
        "HostConfig": {
            # Without an init process a main process that handles no SIGTERM never sees it.
            "Init": True,
            "LogConfig": LOG_CONFIG,
            "Mounts": [_mount(source, target) for source, target in spec.volumes.items()],
            **_confinement(spec),
            **_limits(spec),
        },
    }


def _confinement(spec: ContainerSpec) -> dict[str, Any]:
    """Return what keeps the container in; namespaces and seccomp are the engine's defaults."""
    confinement: dict[str, Any] = {
        "Privileged": False,
        "CapDrop": ["ALL"],
        "CapAdd": CAPABILITIES,
        "SecurityOpt": ["no-new-privileges:true"],
        "NetworkMode": spec.network,
        "IpcMode": "private",
        "ReadonlyRootfs": spec.read_only,
    }
    if spec.read_only:
        confinement["Tmpfs"] = TMPFS
    if spec.runtime:
        confinement["Runtime"] = spec.runtime
    return confinement


def refuse_sockets(volumes: Iterable[str], host: str) -> None:
    """Do nothing unless one of the paths on the host is, or leads to, a socket of the engine.

    Args:
        volumes: Paths on the host; names of volumes are none.
        host: Where the engine is, as in DOCKER_HOST.

    Raises:
        PolicyRefused: If so: who has the engine's socket has the machine.
    """
    sockets = [Path(path).resolve() for path in (*SOCKETS, host.removeprefix("unix://"))]
    for volume in volumes:
        paths = Path(volume).resolve() if volume.startswith("/") else None
        if paths and any(socket.is_relative_to(paths) for socket in sockets):
            raise PolicyRefused(
                f"{volume} holds the container engine's socket and is never given to a container."
            )


def _mount(source: str, target: str) -> dict[str, Any]:
    kind = "bind" if source.startswith("/") else "volume"
    return {"Type": kind, "Source": source, "Target": target, "ReadOnly": False}


def _limits(spec: ContainerSpec) -> dict[str, Any]:
    limits: dict[str, Any] = {
        "PidsLimit": spec.pids_limit,
        "ShmSize": spec.shm_mb * MB,
        "Ulimits": ULIMITS,
        # When the machine runs out of memory, ops go before the worker and the engine.
        "OomScoreAdj": 500,
    }
    if spec.cpu is not None:
        limits["NanoCpus"] = round(spec.cpu * 1e9)
    if spec.ram_mb is not None:
        limits["Memory"] = limits["MemorySwap"] = spec.ram_mb * MB
    if spec.gpus:
        # One request with several ids: several requests give the GPUs of the last one alone.
        limits["DeviceRequests"] = [
            {"Driver": "", "Count": 0, "DeviceIDs": spec.gpus, "Capabilities": [["gpu"]]}
        ]
    return limits
