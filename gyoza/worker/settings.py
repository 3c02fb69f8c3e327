"""What a worker can be told, from flags and `GYOZA_*` variables."""

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_args

from gyoza.client import Access
from gyoza.client.credentials import data_dir
from gyoza.models import InvalidIdError, check_id
from gyoza.models.limits import RUNNING_OPS
from gyoza.worker.containers.pulls import REGISTRY_WAIT_S, PullPolicy
from gyoza.worker.errors import SettingsError
from gyoza.worker.policy import ContainerPolicy, require_least
from gyoza.worker.worker_context.utils import detect_cpu_and_ram


def default_worker_id() -> str:
    """Return this machine's name, reduced to what an id may contain."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).lstrip("_.-")[:63] or "worker"


def usable_cpus() -> int:
    """Return how many CPU cores this process may use, whatever the machine has."""
    cores, _ = detect_cpu_and_ram()
    return min(cores, RUNNING_OPS)


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """A worker's settings; `_VARIABLES` names the environment variable of each.

    Attributes:
        server_url: None takes the client's default.
        api_key: None takes the key from the environment or the one stored on this machine.
        api_key_file: A file with the key, read again whenever the server refuses the one it had.
        ca_file: Authorities that may vouch for the server; None takes the client's default.
        client_cert: The certificate to show it; None takes the client's default.
        client_key: Its private key.
        worker_id: Unique among the server's workers.
        tags: What runs may ask of a worker.
        work_dir: Where op directories are made; the engine must see the same path.
        cpus: CPU cores that it offers to runs; None for those it may use itself.
        ram_mb: Megabytes of memory that it offers; None for what it may use itself.
        max_concurrency: Op runs at a time, if the system lets the worker open files for them.
        pull_policy: always, missing or never.
        registry_wait_s: Seconds for which a registry that cannot be reached is asked again.
        grace_s: Seconds between SIGTERM and SIGKILL for a container that is stopped.
        drain_timeout_s: Seconds that running ops may take to finish after the first signal.
        heartbeat_s: Seconds between heartbeats, at most: several go within the server's lease.
        fence_after_s: Seconds without an answer to a heartbeat after which all runs are stopped;
            None for never.
        max_runs: Runs to claim in all, then the worker ends; None for no limit.
        idle_exit_s: Seconds without anything to do after which the worker ends; None for never.
        min_free_mb: Megabytes that must be free on the disks of runs and engine; 0 for any.
        pass_env: Names of the worker's own variables that every container gets; no others do.
        secret_env: Names of variables, passed or a run's own, whose values are masked in logs.
        policy: What containers may be and have.
        passed_env: The variables that `pass_env` names, those that there are; set by `from_env`.
    """

    server_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_file: str | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    worker_id: str = field(default_factory=default_worker_id)
    tags: list[str] = field(default_factory=list[str])
    work_dir: Path = field(default_factory=lambda: data_dir() / "work")
    cpus: int | None = None
    ram_mb: int | None = None
    max_concurrency: int = field(default_factory=usable_cpus)
    pull_policy: PullPolicy = "always"
    registry_wait_s: float = REGISTRY_WAIT_S
    grace_s: float = 10.0
    drain_timeout_s: float = 300.0
    heartbeat_s: float = 5.0
    fence_after_s: float | None = None
    max_runs: int | None = None
    idle_exit_s: float | None = None
    min_free_mb: int = 512
    pass_env: list[str] = field(default_factory=list[str])
    secret_env: list[str] = field(default_factory=list[str])
    policy: ContainerPolicy = field(default_factory=ContainerPolicy)
    passed_env: dict[str, str] = field(default_factory=dict[str, str], repr=False)

    def __post_init__(self) -> None:
        try:
            check_id(self.worker_id, "worker id")
        except InvalidIdError as error:
            raise SettingsError(str(error)) from error
        if self.pull_policy not in (policies := get_args(PullPolicy)):
            raise SettingsError(
                f"The pull policy must be one of {', '.join(policies)}, not {self.pull_policy!r}."
            )
        require_least(self, _LEAST)
        if self.max_concurrency > RUNNING_OPS:
            raise SettingsError(
                f"A worker has {RUNNING_OPS} runs at a time at most, not {self.max_concurrency}; "
                "start another worker for more."
            )
        if self.fence_after_s is not None and self.fence_after_s < 2 * self.heartbeat_s:
            raise SettingsError(
                f"The setting fence_after must be at least two heartbeats "
                f"({2 * self.heartbeat_s:g} s), not {self.fence_after_s:g}."
            )

    @property
    def access(self) -> Access:
        """How the server is reached."""
        return Access(
            url=self.server_url,
            api_key=self.api_key,
            api_key_file=self.api_key_file,
            ca_file=self.ca_file,
            client_cert=self.client_cert,
            client_key=self.client_key,
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **overrides: Any) -> Self:
        """Build from the environment; an override that is not None wins.

        The server's URL and key stay unset here unless overridden: the client finds them.

        Raises:
            SettingsError: With one sentence naming the variable and what it may be.
        """
        values = {
            name: read(variable, environ[variable])
            for name, (variable, read) in _VARIABLES.items()
            if environ.get(variable)
        }
        values |= {name: value for name, value in overrides.items() if value is not None}
        policy = {name: values.pop(name) for name in _names_of(ContainerPolicy) & values.keys()}
        known: dict[str, Any] = {name: values[name] for name in _names_of(cls) & values.keys()}
        known.setdefault("policy", ContainerPolicy(**policy))
        passed: list[str] = values.get("pass_env", [])
        if ours := [name for name in passed if name.startswith("GYOZA_")]:
            raise SettingsError(f"{ours[0]} is gyoza's own and cannot be passed to containers.")
        if cpus := known.get("cpus"):
            known.setdefault("max_concurrency", min(cpus, RUNNING_OPS))
        known["passed_env"] = {name: environ[name] for name in passed if name in environ}
        return cls(**known)


def _names_of(kind: type) -> set[str]:
    return {f.name for f in fields(kind)}


def _number(kind: type[int] | type[float]) -> Callable[[str, str], float]:
    def read(name: str, text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{name} must be {wanted}, not {text!r}.") from None

    return read


def _text(_name: str, text: str) -> str:
    return text


def _yes(name: str, text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in known:
        raise SettingsError(f"{name} must be true or false, not {text!r}.")
    return known[text.lower()]


def _path(_name: str, text: str) -> Path:
    return Path(text)


def _names(_name: str, text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


_LEAST: dict[str, float] = {
    "cpus": 1,
    "ram_mb": 1,
    "max_concurrency": 1,
    "registry_wait_s": 0,
    "grace_s": 0,
    "drain_timeout_s": 0,
    "heartbeat_s": 0.01,
    "max_runs": 1,
    "idle_exit_s": 0.01,
    "min_free_mb": 0,
}

_VARIABLES: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "worker_id": ("GYOZA_WORKER_ID", _text),
    "tags": ("GYOZA_WORKER_TAGS", _names),
    "work_dir": ("GYOZA_WORK_DIR", _path),
    "cpus": ("GYOZA_CPUS", _number(int)),
    "ram_mb": ("GYOZA_RAM_MB", _number(int)),
    "max_concurrency": ("GYOZA_MAX_CONCURRENCY", _number(int)),
    "pull_policy": ("GYOZA_PULL_POLICY", _text),
    "registry_wait_s": ("GYOZA_REGISTRY_WAIT", _number(float)),
    "grace_s": ("GYOZA_GRACE", _number(float)),
    "drain_timeout_s": ("GYOZA_DRAIN_TIMEOUT", _number(float)),
    "heartbeat_s": ("GYOZA_HEARTBEAT", _number(float)),
    "fence_after_s": ("GYOZA_FENCE_AFTER", _number(float)),
    "max_runs": ("GYOZA_MAX_RUNS", _number(int)),
    "idle_exit_s": ("GYOZA_IDLE_EXIT", _number(float)),
    "min_free_mb": ("GYOZA_MIN_FREE_MB", _number(int)),
    "pass_env": ("GYOZA_PASS_ENV", _names),
    "secret_env": ("GYOZA_SECRET_ENV", _names),
    "allow_images": ("GYOZA_ALLOW_IMAGES", _names),
    "network": ("GYOZA_NETWORK", _text),
    "user": ("GYOZA_USER", _text),
    "runtime": ("GYOZA_RUNTIME", _text),
    "read_only": ("GYOZA_READ_ONLY", _yes),
    "pids_limit": ("GYOZA_PIDS_LIMIT", _number(int)),
    "shm_mb": ("GYOZA_SHM_MB", _number(int)),
    "max_cpu": ("GYOZA_MAX_CPU", _number(float)),
    "max_ram_mb": ("GYOZA_MAX_RAM_MB", _number(int)),
}
