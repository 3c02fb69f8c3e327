"""What `docker login` has stored for a registry, read as `docker` does.

docker-py would look into the home directory where DOCKER_CONFIG names another, and give up for a
helper that is not there.
"""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from gyoza.models.images import HUB

HUB_KEY = "https://index.docker.io/v1/"
"""Under which `docker login` stores what is for Docker Hub."""

HELPER_S = 30.0
"""Seconds that a credentials helper may take."""

NOT_FOUND = "credentials not found"
"""What a helper says that has no login for a registry."""


class _Unreadable(Exception):
    """A login cannot be read; says why."""


def config_folder() -> Path:
    """Return the folder with `docker`'s own files."""
    named = os.environ.get("DOCKER_CONFIG")
    return Path(named) if named else Path.home() / ".docker"


def docker_config() -> dict[str, Any]:
    """Return what `config.json` holds, nothing if there is none.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds something else than an object.
    """
    try:
        config = json.loads((config_folder() / "config.json").read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(config, dict):
        raise ValueError("it is not an object")
    return config  # pyright: ignore[reportUnknownVariableType]


def login_headers(registry: str) -> tuple[dict[str, str], str]:
    """Return the headers that carry the login for a registry, and why it cannot be read.

    A login that cannot be read is none, as for `docker`: most images need none.

    Args:
        registry: With its port; of Docker Hub `docker.io`.

    Returns:
        The headers, none without a login; and a sentence, empty if all is well.
    """
    try:
        login = _login(registry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{config_folder() / 'config.json'} cannot be read as Docker's: {error}."
    except _Unreadable as error:
        return {}, f"The login for {registry} cannot be read: {error}."
    if not login:
        return {}, ""
    text = json.dumps(login).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text).decode()}, ""


def _login(registry: str) -> dict[str, str] | None:
    config, key = docker_config(), HUB_KEY if registry == HUB else registry
    helpers: dict[str, str] = config.get("credHelpers") or {}
    if helper := helpers.get(key) or config.get("credsStore"):
        return _ask_helper(helper, key)
    stored: dict[str, dict[str, str]] = config.get("auths") or {}
    found = stored.get(key)
    if found is None:
        found = next((stored[name] for name in stored if _registry_of(name) == registry), None)
    return found and _as_login(found, key)


def _as_login(entry: dict[str, str], key: str) -> dict[str, str] | None:
    """Return what the engine is to be told of an entry of the file."""
    login = {
        name: entry[name]
        for name in ("username", "password", "identitytoken", "registrytoken")
        if entry.get(name)
    }
    if text := entry.get("auth"):
        user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        login |= {"username": user, "password": password.strip("\0")}
    return {**login, "serveraddress": key} if login else None


def _ask_helper(name: str, key: str) -> dict[str, str] | None:
    """Return what a helper has for a registry.

    Raises:
        _Unreadable: If it is not there, or does not tell.
    """
    program = f"docker-credential-{name}"
    try:
        told = subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True, timeout=HELPER_S, check=False
        )
    except OSError as error:
        raise _Unreadable(f"{program} cannot be started ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise _Unreadable(f"{program} has not answered within {HELPER_S:g} s") from error
    if told.returncode:
        words = (told.stdout or told.stderr).decode(errors="replace").strip()
        if NOT_FOUND in words:
            return None
        raise _Unreadable(f"{program} says {words[:200]!a}")
    try:
        answer: dict[str, str] = json.loads(told.stdout)
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise _Unreadable(f"{program} gives no login") from error
    if user == "<token>":
        return {"identitytoken": secret, "serveraddress": key}
    return {"username": user, "password": secret, "serveraddress": key} if user or secret else None


def _registry_of(name: str) -> str:
    """Return the registry that an entry of the file is for: keys may be whole addresses."""
    host = name.removeprefix("http://").removeprefix("https://").partition("/")[0]
    return HUB if host == f"index.{HUB}" else host
