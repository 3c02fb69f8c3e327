"""Options that stand for a setting: the flag is read here, its variable by the settings class."""

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
Lease = Annotated[
    float | None,
    _option("GYOZA_LEASE_S", "Seconds without a heartbeat until a worker's runs go on; 60."),
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

    tags = None
    if worker_tags is not None:
        tags = [tag.strip() for tag in worker_tags.split(",") if tag.strip()]
    return WorkerSettings.from_env(tags=tags, **flags)
