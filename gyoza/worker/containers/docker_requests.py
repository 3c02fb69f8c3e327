"""What the Engine API wants to hear: a container's description as JSON."""

from typing import Any

from gyoza.worker.containers.engine import ContainerSpec

MB = 1024 * 1024
# `local` keeps bytes as they are, where json-file replaces what is not UTF-8. Two files of half a
# gigabyte: a container can take no more of the disk, and only beyond the first its start is lost.
LOG_CONFIG = {
    "Type": "local",
    "Config": {"max-size": "500m", "max-file": "2", "compress": "false"},
}


def container_body(spec: ContainerSpec) -> dict[str, Any]:
    """Return the body of `POST /containers/create`."""
    return {
        "Image": spec.image,
        "Cmd": spec.command,
        "Env": [f"{name}={value}" for name, value in _env(spec).items()],
        "Labels": dict(spec.labels),
        "HostConfig": {
            # Without an init process a main process that handles no SIGTERM never sees it.
            "Init": True,
            "LogConfig": LOG_CONFIG,
            "Mounts": [_mount(source, target) for source, target in spec.volumes.items()],
            **_limits(spec),
        },
    }


def _env(spec: ContainerSpec) -> dict[str, str]:
    """Add the GPUs: where the NVIDIA runtime is the default, an image's own value shows all."""
    gpus = ",".join(map(str, spec.gpu_ids)) or "void"
    return {**spec.env, "NVIDIA_VISIBLE_DEVICES": gpus}


def _mount(source: str, target: str) -> dict[str, Any]:
    kind = "bind" if source.startswith("/") else "volume"
    return {"Type": kind, "Source": source, "Target": target, "ReadOnly": False}


def _limits(spec: ContainerSpec) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if spec.cpu is not None:
        limits["NanoCpus"] = round(spec.cpu * 1e9)
    if spec.ram_mb is not None:
        limits["Memory"] = limits["MemorySwap"] = spec.ram_mb * MB
    if spec.gpu_ids:
        limits["DeviceRequests"] = [
            {
                "Driver": "",
                "Count": 0,
                "DeviceIDs": [str(gpu) for gpu in spec.gpu_ids],
                "Capabilities": [["gpu"]],
            }
        ]
    return limits
