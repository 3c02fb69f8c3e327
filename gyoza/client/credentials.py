"""Where the API key and the data of this user live, so that programs on one machine find each other."""

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


def find_api_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the API key, or None if there is none.

    `GYOZA_API_KEY` comes first, then the file named by `GYOZA_API_KEY_FILE`, then the key that a
    server of the same user has stored.

    Raises:
        CredentialsError: If `GYOZA_API_KEY_FILE` names a file that cannot be read.
    """
    if key := environ.get("GYOZA_API_KEY", "").strip():
        return key
    if named := environ.get("GYOZA_API_KEY_FILE", ""):
        try:
            return Path(named).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialsError(
                f"The API key file {named} cannot be read ({error}); correct GYOZA_API_KEY_FILE."
            ) from error
    try:
        return stored_key_path().read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
