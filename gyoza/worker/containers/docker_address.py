"""Where the engine is, by the variables and contexts of `docker`; what is not done is refused."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyoza.worker.containers.docker_login import config_folder, docker_config
from gyoza.worker.errors import SettingsError

DEFAULT_HOST = "unix:///var/run/docker.sock"
LEAST_VERSION = (1, 40)
"""The first version of the API in which a container can be given the very GPUs of a run."""

_REFUSED = {
    "DOCKER_CONTENT_TRUST": "gyoza checks no signatures of images",
    "DOCKER_DEFAULT_PLATFORM": "images are those of the engine's own platform",
    "DOCKER_CUSTOM_HEADERS": "gyoza sends no headers of others",
}
_NO = ("", "0", "f", "false")


@dataclass(frozen=True)
class EngineAddress:
    """Where an engine is, and how it is spoken to.

    Attributes:
        host: As in DOCKER_HOST.
        context: Name of the context that says so; None if it is the variables.
        certificates: The context's folder with `ca.pem`, and `cert.pem` and `key.pem` to be shown.
        version: Of the API; None for the engine's own.
    """

    host: str
    context: str | None = None
    certificates: Path | None = None
    version: str | None = None


def engine_address(environ: Mapping[str, str] = os.environ) -> EngineAddress:
    """Return where `docker` would look for the engine.

    DOCKER_HOST comes before DOCKER_CONTEXT, and that before the context of `docker context use`.

    Raises:
        SettingsError: If a variable or context means something that a worker does not do.
    """
    for name, why in _REFUSED.items():
        if environ.get(name, "").lower() not in _NO:
            raise SettingsError(f"{name} is set, and {why}; unset it for the worker.")
    version = _version(environ.get("DOCKER_API_VERSION"))
    if host := environ.get("DOCKER_HOST"):
        return EngineAddress(_speakable(host, "DOCKER_HOST"), version=version)
    context = environ.get("DOCKER_CONTEXT") or _current_context()
    if context in (None, "default"):
        return EngineAddress(DEFAULT_HOST, version=version)
    return _of_context(context, version)


def _current_context() -> str | None:
    try:
        return docker_config().get("currentContext") or None
    except (OSError, ValueError):  # `docker` says so and goes on
        return None


def _of_context(name: str, version: str | None) -> EngineAddress:
    folder, key = config_folder() / "contexts", hashlib.sha256(name.encode()).hexdigest()
    try:
        meta: dict[str, Any] = json.loads((folder / "meta" / key / "meta.json").read_bytes())
        endpoint: dict[str, Any] = meta["Endpoints"]["docker"]
        host, trusts_all = endpoint.get("Host") or DEFAULT_HOST, endpoint.get("SkipTLSVerify")
    except FileNotFoundError:
        raise SettingsError(
            f"There is no Docker context {name!r} in {folder}; `docker context ls` lists them."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"The Docker context {name!r} cannot be read: {error!r}.") from error
    if trusts_all:
        raise SettingsError(f"The Docker context {name!r} would believe any engine.")
    certificates = folder / "tls" / key / "docker"
    return EngineAddress(
        _speakable(host, f"the Docker context {name!r}"),
        name,
        certificates if certificates.is_dir() else None,
        version,
    )


def _speakable(host: str, where: str) -> str:
    if host.startswith("ssh://"):
        raise SettingsError(
            f"{where} is {host}, and a worker does not speak to an engine by SSH; run it on the "
            "engine's machine, or use tcp:// with TLS."
        )
    return host


def _version(text: str | None) -> str | None:
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", text)
    if found is None or (int(found[1]), int(found[2])) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise SettingsError(f"DOCKER_API_VERSION must be {least} or later, not {text!r}.")
    return text
