"""Options that stand for a setting: the flag is read here, its variable by the settings class."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gyoza.cli.errors import CliError

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


Host = Annotated[str | None, _option("GYOZA_HOST", "Address to listen on. [default: 127.0.0.1]")]
Port = Annotated[
    int | None, _option("GYOZA_PORT", "Port to listen on. [default: 5555; 0 = a free one]")
]
DatabaseUrl = Annotated[
    str | None,
    _option("GYOZA_DATABASE_URL", "sqlite:///FILE. [default: a file in the user's data directory]"),
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
    float | None,
    _option("GYOZA_RATE_LIMIT", "Requests a second for each key. [default: 1000; 0 = unlimited]"),
]
MaxConnections = Annotated[
    int | None,
    _option(
        "GYOZA_MAX_CONNECTIONS",
        "Connections at a time. [default: what open files allow, up to 10,000]",
    ),
]
MaxPerAddress = Annotated[
    int | None,
    _option(
        "GYOZA_MAX_CONNECTIONS_PER_ADDRESS",
        "Connections of one address that has shown no valid key. [default: 256; 0 = unlimited]",
    ),
]
MaxPerKey = Annotated[
    int | None,
    _option(
        "GYOZA_MAX_CONNECTIONS_PER_KEY",
        "Connections with one key. [default: three quarters of all]",
    ),
]
RootPath = Annotated[
    str | None,
    _option("GYOZA_ROOT_PATH", "Path under which a reverse proxy shows the server: /gyoza."),
]
Lease = Annotated[
    float | None,
    _option(
        "GYOZA_LEASE_S",
        "Seconds without a heartbeat until a worker counts as lost and its runs go to others. "
        "[default: 60]",
    ),
]
Retention = Annotated[
    float | None,
    _option(
        "GYOZA_RETENTION_DAYS", "Days until a run that ended is deleted. [default: 90; 0 = never]"
    ),
]

WorkerName = Annotated[
    str | None, _option("GYOZA_WORKER_ID", "This worker's id. [default: the machine's name]")
]
WorkerTags = Annotated[
    str | None, _option("GYOZA_WORKER_TAGS", "Tags that runs may ask for: a,b.", metavar="TAGS")
]
WorkDir = Annotated[
    Path | None,
    _option("GYOZA_WORK_DIR", "Directory for the files of running runs.", metavar="DIR"),
]
MaxConcurrency = Annotated[
    int | None,
    _option("GYOZA_MAX_CONCURRENCY", "Runs at a time. [default: one for each CPU it offers]"),
]
Cpus = Annotated[
    int | None, _option("GYOZA_CPUS", "CPU cores to offer. [default: those it may use]")
]
RamMb = Annotated[
    int | None,
    _option("GYOZA_RAM_MB", "Megabytes of memory to offer. [default: those it may use]"),
]
PullPolicy = Annotated[Pull | None, _option("GYOZA_PULL_POLICY", "When images are pulled.")]
RegistryWait = Annotated[
    float | None,
    _option("GYOZA_REGISTRY_WAIT", "Seconds to wait for a registry that is away. [default: 120]"),
]
Grace = Annotated[
    float | None,
    _option("GYOZA_GRACE", "Seconds between SIGTERM and SIGKILL for a container. [default: 10]"),
]
DrainTimeout = Annotated[
    float | None,
    _option(
        "GYOZA_DRAIN_TIMEOUT", "Seconds running ops may take to finish at the end. [default: 300]"
    ),
]
Heartbeat = Annotated[
    float | None, _option("GYOZA_HEARTBEAT", "Seconds between heartbeats. [default: 5]")
]
FenceAfter = Annotated[
    float | None,
    _option(
        "GYOZA_FENCE_AFTER",
        "Seconds without the server until all runs are stopped. [default: never]",
    ),
]
MaxRuns = Annotated[
    int | None,
    _option("GYOZA_MAX_RUNS", "Runs to claim, then the worker ends. [default: unlimited]"),
]
Once = Annotated[bool, typer.Option("--once", help="The same as --max-runs 1.")]
IdleExit = Annotated[
    float | None,
    _option(
        "GYOZA_IDLE_EXIT", "Seconds with nothing to do until the worker ends. [default: never]"
    ),
]
MinFreeMb = Annotated[
    int | None,
    _option("GYOZA_MIN_FREE_MB", "Free megabytes below which nothing is claimed. [default: 512]"),
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
            "Images that may run: python,ghcr.io/me/**. [default: any]",
            metavar="PATTERNS",
        ),
    ] = None
    network: Annotated[
        str | None,
        _policy("GYOZA_NETWORK", 'Docker network. [default: gyoza, its own; "none" = no network]'),
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
        int | None,
        _policy("GYOZA_PIDS_LIMIT", "Processes and threads of a container. [default: 4096]"),
    ] = None
    shm_mb: Annotated[
        int | None, _policy("GYOZA_SHM_MB", "Megabytes of a container's /dev/shm. [default: 64]")
    ] = None
    max_cpu: Annotated[
        float | None, _policy("GYOZA_MAX_CPU", "CPU cores that a run gets at most. [default: all]")
    ] = None
    max_ram_mb: Annotated[
        int | None,
        _policy("GYOZA_MAX_RAM_MB", "Megabytes of memory that a run gets at most. [default: all]"),
    ] = None
    pass_env: Annotated[
        str | None,
        _policy(
            "GYOZA_PASS_ENV",
            "Variables of the worker that containers get. [default: none]",
            metavar="NAMES",
        ),
    ] = None
    secret_env: Annotated[
        str | None,
        _policy(
            "GYOZA_SECRET_ENV",
            "Variables whose values are masked in logs. [default: none]",
            metavar="NAMES",
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


PATHS = ("work_dir", "database_url", "ca_file", "client_cert", "client_key", "api_key_file")
"""Settings that name files, whose names may be any bytes; and those of TLS of a server."""


def _check_text(settings: Any) -> None:
    """Check that nothing in the settings is other text than UTF-8, which cannot be sent.

    Raises:
        CliError: If something is.
    """
    for name, value in cast("dict[str, Any]", vars(settings)).items():
        if name in PATHS or name.startswith("tls_"):
            continue
        members: list[Any] = (
            list(cast("Any", value)) if isinstance(value, list | tuple) else [value]
        )
        for text in members:
            if isinstance(text, str) and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise CliError(f"The setting {name} is not UTF-8 text; correct it.") from None


def server_settings(**flags: Any) -> "ServerSettings":
    """Return the server's settings from flags and the environment.

    Raises:
        SettingsError: If one of them cannot be used.
    """
    from gyoza.server.settings import ServerSettings

    settings = ServerSettings.from_env(**flags)
    _check_text(settings)
    return settings


def worker_settings(worker_tags: str | None = None, **flags: Any) -> "WorkerSettings":
    """Return the worker's settings from flags and the environment.

    Raises:
        SettingsError: If one of them cannot be used.
    """
    from gyoza.worker.settings import WorkerSettings

    settings = WorkerSettings.from_env(tags=names(worker_tags), **flags)
    _check_text(settings)
    return settings
