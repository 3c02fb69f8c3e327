"""Where the API key and data of this user live, so that one machine's programs find each other."""

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from gyoza.client.errors import CredentialsError


def data_dir() -> Path:
    """Return the user's data directory for gyoza; it may not exist yet."""
    return platformdirs.user_data_path("gyoza")


def stored_key_path() -> Path:
    """Return the file in which a server started without a key stores the one it makes."""
    return data_dir() / "api_key"


def configured_api_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the key in `GYOZA_API_KEY`, else in the file named by `GYOZA_API_KEY_FILE`.

    Raises:
        CredentialsError: If that file cannot be read.
    """
    if key := environ.get("GYOZA_API_KEY", "").strip():
        return key
    named = environ.get("GYOZA_API_KEY_FILE", "")
    if not named:
        return None
    try:
        return Path(named).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(
            f"The API key file {named} cannot be read ({error}); correct GYOZA_API_KEY_FILE."
        ) from error


def stored_api_key() -> str | None:
    """Return the key that a server of this user has stored, if there is one."""
    try:
        return stored_key_path().read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def find_api_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the configured key, else the stored one, else None."""
    return configured_api_key(environ) or stored_api_key()
