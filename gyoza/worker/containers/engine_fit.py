"""Whether an engine has what all containers of a worker need: without it every run would fail."""

from gyoza.worker.containers.engine import LOG_DRIVER, OWN_NETWORK, ContainerEngine, EngineInfo
from gyoza.worker.errors import EngineFailed, SettingsError
from gyoza.worker.policy import ContainerPolicy


async def require_fit(engine: ContainerEngine, info: EngineInfo, policy: ContainerPolicy) -> None:
    """Do nothing if the engine has what every container of a worker with this policy needs.

    Args:
        engine: Asked for what it does not tell of itself.
        info: What it has just told of itself.
        policy: Of the worker.

    Raises:
        SettingsError: If it does not have what the policy names.
        EngineFailed: If it lacks what every container needs.
        EngineError: If it does not answer.
    """
    if not info.has_init:
        raise EngineFailed(
            "The Docker Engine has no docker-init, which every container of gyoza needs; install "
            "the package with it (on Debian: tini), or name it with dockerd's --init-path."
        )
    if info.log_drivers is not None and LOG_DRIVER not in info.log_drivers:
        raise EngineFailed(
            f"The engine has no log driver {LOG_DRIVER}, with which gyoza keeps what ops write; "
            "use Docker (Podman has none)."
        )
    if policy.runtime and info.runtimes is not None and not _has_runtime(info, policy.runtime):
        raise SettingsError(
            f"The Docker Engine has no runtime {policy.runtime}, which the setting runtime names; "
            f"it has {', '.join(sorted(info.runtimes))}."
        )
    if policy.max_cpu is not None and info.cpus is not None and policy.max_cpu > info.cpus:
        raise SettingsError(
            f"The setting max_cpu is {policy.max_cpu:g}; the Docker Engine has {info.cpus} CPUs."
        )
    own = policy.network == OWN_NETWORK  # which is made when it is needed
    if not own and not await engine.has_network(policy.network):
        raise SettingsError(
            f"The Docker Engine has no network {policy.network}, which the setting network names; "
            f"create it (docker network create {policy.network}) or choose another, such as none."
        )


def _has_runtime(info: EngineInfo, runtime: str) -> bool:
    # Names of containerd's own kind stand for programs that an engine looks for only when asked.
    return runtime in (info.runtimes or ()) or runtime.startswith("io.containerd.")
