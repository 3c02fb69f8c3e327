"""What the server can be told: arguments first, then `GYOZA_*` variables, then defaults."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from gyoza.client.credentials import data_dir
from gyoza.server.errors import SettingsError

API_PATHS = (
    "/runs",
    "/definitions",
    "/workers",
    "/events",
    "/keys",
    "/health",
    "/readyz",
    "/docs",
    "/openapi.json",
)
"""How the paths of the API begin; a prefix that begins so cannot be told from them."""

LOG_LEVELS = ("critical", "error", "warning", "info", "debug")


def default_database_url() -> str:
    """Return the URL of the SQLite file in the user's data directory."""
    return f"sqlite:///{data_dir() / 'gyoza.sqlite3'}"


@dataclass(frozen=True)
class ServerSettings:
    """How one server runs.

    Attributes:
        host: Name or address to listen on.
        port: TCP port; 0 takes any free one.
        database_url: `sqlite:///` and the path of the file; empty for the user's data directory.
        api_key: The key every request must carry; empty to find or make one.
        api_key_file: A file with that key, looked at again and again; empty for the environment's.
        tls_certfile: PEM file with the certificate chain; empty for plain HTTP.
        tls_keyfile: PEM file with the certificate's key.
        tls_client_ca: PEM file of the authorities one of which must vouch for each client; empty to
            ask for no certificate.
        rate_limit: Requests a second for each key, five seconds' worth at once; 0 for any number.
        max_connections: Connections at a time; 0 for what the limit of open files allows, at most
            10,000.
        max_connections_per_address: Of one address whose requests have shown no good key; 0 for
            any number.
        max_connections_per_key: With one key; 0 for three quarters of all.
        root_path: The path under which a reverse proxy shows the server, as in `/gyoza`; empty for
            none.
        lease_s: Seconds after its last heartbeat until a worker's runs go to others.
        retention_days: Days after its end until a run is deleted with its events and logs; 0 to
            keep all.
        log_level: One of `LOG_LEVELS`.
    """

    host: str = "127.0.0.1"
    port: int = 5555
    database_url: str = ""
    api_key: str = field(default="", repr=False)
    api_key_file: str = ""
    tls_certfile: str = ""
    tls_keyfile: str = ""
    tls_client_ca: str = ""
    rate_limit: float = 1000.0
    max_connections: int = 0
    max_connections_per_address: int = 256
    max_connections_per_key: int = 0
    root_path: str = ""
    lease_s: float = 60.0
    retention_days: float = 90.0
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"{self.port} is not a TCP port; use 0 to 65535.")
        if not 0 < self.lease_s < 1e9:
            raise SettingsError("GYOZA_LEASE_S must be a number of seconds above 0.")
        if self.log_level.lower() not in LOG_LEVELS:
            raise SettingsError(
                f"{self.log_level!r} is not a log level; use {', '.join(LOG_LEVELS)}."
            )
        if bool(self.tls_certfile) != bool(self.tls_keyfile):
            raise SettingsError("TLS needs both a certificate and its key; only one is given.")
        if self.tls_client_ca and not self.tls_certfile:
            raise SettingsError("Clients show certificates with TLS only; give tls_certfile too.")
        if not 0 <= self.rate_limit < 1e9:
            raise SettingsError("GYOZA_RATE_LIMIT must be a number of requests a second, or 0.")
        for name in ("max_connections", "max_connections_per_address", "max_connections_per_key"):
            if not 0 <= getattr(self, name) < 1e9:
                raise SettingsError(f"GYOZA_{name.upper()} must be a number, or 0 for the default.")
        if self.root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", self.root_path):
            raise SettingsError(
                f"GYOZA_ROOT_PATH must be a path like /gyoza, not {self.root_path!r}."
            )
        first = "/" + self.root_path[1:].partition("/")[0]
        if first in API_PATHS:
            raise SettingsError(
                f"GYOZA_ROOT_PATH must not begin with {first}, which is a path of the API itself; "
                "use another one, like /gyoza."
            )
        if not 0 <= self.retention_days < 1e6:
            raise SettingsError("GYOZA_RETENTION_DAYS must be a number of days, or 0 to keep all.")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **overrides: Any) -> Self:
        """Build from `GYOZA_*` variables; overrides that are not None win.

        Raises:
            SettingsError: If a value cannot be what its setting needs.
        """
        values = {name: value for name, value in overrides.items() if value is not None}
        for name in (f.name for f in fields(cls)):
            # The key has its own rules, which the client shares: see `gyoza.client.credentials`.
            text = environ.get(f"GYOZA_{name.upper()}", "").strip()
            if text and name not in values and name not in ("api_key", "api_key_file"):
                values[name] = _parse(name, text)
        return cls(**values)

    @property
    def url_of_database(self) -> str:
        """The database URL, the default one if none is set."""
        return self.database_url or default_database_url()

    @property
    def database_path(self) -> Path:
        """The file the database lives in.

        Raises:
            SettingsError: If the URL does not name a SQLite file.
        """
        scheme, _, path = self.url_of_database.partition(":///")
        if scheme != "sqlite" or not path or path.startswith((":memory:", "file:")):
            raise SettingsError(
                f"GYOZA_DATABASE_URL must name a SQLite file, as in "
                f"sqlite:////var/lib/gyoza/gyoza.sqlite3, not {self.url_of_database!r}."
            )
        return Path(path.partition("?")[0])


_PARSERS: dict[str, Callable[[str], object]] = {
    "port": int,
    "max_connections": int,
    "max_connections_per_address": int,
    "max_connections_per_key": int,
    "lease_s": float,
    "rate_limit": float,
    "retention_days": float,
}


def _parse(name: str, text: str) -> object:
    try:
        return _PARSERS.get(name, str)(text)
    except ValueError as error:
        raise SettingsError(f"GYOZA_{name.upper()} must be a number, not {text!r}.") from error
