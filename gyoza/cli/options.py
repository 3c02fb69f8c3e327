"""Options that stand for a setting: the flag is read here, its variable by the settings class."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gyoza.server.settings import ServerSettings
    from gyoza.worker.settings import WorkerSettings


class Pull(StrEnum):
    """When an image is pulled."""

    ALWAYS = "always"
    MISSING = "missing"
    NEVER = "never"


def _option(variable: str, help_text: str, **more: Any) -> Any:
    return typer.Option(help=f"{help_text} ({variable})", show_default=False, **more)


Host = Annotated[str | None, _option("GYOZA_HOST", "Address to listen on; 127.0.0.1.")]
Port = Annotated[int | None, _option("GYOZA_PORT", "Port to listen on; 5555. 0 takes a free one.")]
DatabaseUrl = Annotated[
    str | None,
    _option("GYOZA_DATABASE_URL", "sqlite:///FILE; a file in the user's data directory."),
]
Certificate = Annotated[
    str | None, _option("GYOZA_TLS_CERTFILE", "PEM file with the certificate.", metavar="FILE")
]
CertificateKey = Annotated[
    str | None, _option("GYOZA_TLS_KEYFILE", "PEM file with its key.", metavar="FILE")
]
ClientAuthorities = Annotated[
    str | None,
    _option(
        "GYOZA_TLS_CLIENT_CA", "PEM file: clients need a certificate of these.", metavar="FILE"
    ),
]
RateLimit = Annotated[
    float | None, _option("GYOZA_RATE_LIMIT", "Requests a second for each key; 1000. 0: any.")
]
MaxConnections = Annotated[
    int | None,
    _option("GYOZA_MAX_CONNECTIONS", "Connections at a time; what open files allow, to 10,000."),
]
MaxPerAddress = Annotated[
    int | None,
    _option(
        "GYOZA_MAX_CONNECTIONS_PER_ADDRESS",
        "Connections of one address that has shown no good key; 256. 0: any.",
    ),
]
MaxPerKey = Annotated[
    int | None,
    _option("GYOZA_MAX_CONNECTIONS_PER_KEY", "Connections with one key; three quarters of all."),
]
RootPath = Annotated[
    str | None,
    _option("GYOZA_ROOT_PATH", "Path under which a reverse proxy shows the server: /gyoza."),
]
Lease = Annotated[
    float | None,
    _option("GYOZA_LEASE_S", "Seconds without a heartbeat until a worker's runs go on; 60."),
]
Retention = Annotated[
    float | None,
    _option("GYOZA_RETENTION_DAYS", "Days until a run that ended is deleted; 90. 0: never."),
]

WorkerName = Annotated[
    str | None, _option("GYOZA_WORKER_ID", "This worker's id; the machine's name.")
]
WorkerTags = Annotated[
    str | None, _option("GYOZA_WORKER_TAGS", "Tags that runs may ask for: a,b.", metavar="TAGS")
]
WorkDir = Annotated[
    Path | None, _option("GYOZA_WORK_DIR", "Where op directories are made.", metavar="DIR")
]
MaxConcurrency = Annotated[
    int | None, _option("GYOZA_MAX_CONCURRENCY", "Runs at a time; one for each CPU.")
]
PullPolicy = Annotated[Pull | None, _option("GYOZA_PULL_POLICY", "When images are pulled.")]
RegistryWait = Annotated[
    float | None,
    _option("GYOZA_REGISTRY_WAIT", "Seconds to wait for a registry that is away; 120."),
]
Grace = Annotated[
    float | None,
    _option("GYOZA_GRACE", "Seconds between SIGTERM and SIGKILL for a container; 10."),
]
DrainTimeout = Annotated[
    float | None,
    _option("GYOZA_DRAIN_TIMEOUT", "Seconds running ops may take to finish at the end; 300."),
]
Heartbeat = Annotated[float | None, _option("GYOZA_HEARTBEAT", "Seconds between heartbeats; 5.")]
FenceAfter = Annotated[
    float | None,
    _option("GYOZA_FENCE_AFTER", "Seconds without the server until all runs are stopped; never."),
]
MaxRuns = Annotated[
    int | None, _option("GYOZA_MAX_RUNS", "Runs to claim, then the worker ends; no limit.")
]
Once = Annotated[bool, typer.Option("--once", help="The same as --max-runs 1.")]
IdleExit = Annotated[
    float | None,
    _option("GYOZA_IDLE_EXIT", "Seconds with nothing to do until the worker ends; never."),
]
MinFreeMb = Annotated[
    int | None,
    _option("GYOZA_MIN_FREE_MB", "Free megabytes below which nothing is claimed; 512."),
]

POLICY_PANEL = "Policy for containers, whatever the server asks for"


def _policy(variable: str, help_text: str, **more: Any) -> Any:
    return _option(variable, help_text, rich_help_panel=POLICY_PANEL, **more)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The flags of the worker's policy for containers."""

    allow_images: Annotated[
        str | None,
        _policy(
            "GYOZA_ALLOW_IMAGES",
            "Images that may run: python,ghcr.io/me/**; any.",
            metavar="PATTERNS",
        ),
    ] = None
    network: Annotated[
        str | None, _policy("GYOZA_NETWORK", "Docker network, none for none; gyoza, which is made.")
    ] = None
    user: Annotated[
        str | None, _policy("GYOZA_USER", "UID:GID in place of the image's user.", metavar="USER")
    ] = None
    runtime: Annotated[
        str | None, _policy("GYOZA_RUNTIME", "Docker runtime, such as gVisor's runsc.")
    ] = None
    read_only: Annotated[
        bool | None,
        _policy("GYOZA_READ_ONLY", "Read-only root file system, with a small /tmp."),
    ] = None
    pids_limit: Annotated[
        int | None, _policy("GYOZA_PIDS_LIMIT", "Processes and threads of a container; 4096.")
    ] = None
    shm_mb: Annotated[
        int | None, _policy("GYOZA_SHM_MB", "Megabytes of a container's /dev/shm; 64.")
    ] = None
    max_cpu: Annotated[
        float | None, _policy("GYOZA_MAX_CPU", "CPU cores that a run gets at most; all.")
    ] = None
    max_ram_mb: Annotated[
        int | None, _policy("GYOZA_MAX_RAM_MB", "Megabytes of memory that a run gets at most; all.")
    ] = None
    pass_env: Annotated[
        str | None,
        _policy(
            "GYOZA_PASS_ENV", "Variables of the worker that containers get; none.", metavar="NAMES"
        ),
    ] = None
    secret_env: Annotated[
        str | None,
        _policy(
            "GYOZA_SECRET_ENV", "Variables whose values are masked in logs; none.", metavar="NAMES"
        ),
    ] = None

    @property
    def settings(self) -> dict[str, Any]:
        """What they say, named and typed as in a worker's settings."""
        return asdict(self) | {
            name: names(getattr(self, name)) for name in ("allow_images", "pass_env", "secret_env")
        }


def names(text: str | None) -> list[str] | None:
    """Return the names in a list with commas between them."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def server_settings(**flags: Any) -> "ServerSettings":
    """Return the server's settings from flags and the environment.

    Raises:
        SettingsError: If one of them cannot be used.
    """
    from gyoza.server.settings import ServerSettings

    return ServerSettings.from_env(**flags)


def worker_settings(worker_tags: str | None = None, **flags: Any) -> "WorkerSettings":
    """Return the worker's settings from flags and the environment.

    Raises:
        SettingsError: If one of them cannot be used.
    """
    from gyoza.worker.settings import WorkerSettings

    return WorkerSettings.from_env(tags=names(worker_tags), **flags)
