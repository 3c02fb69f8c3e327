"""Where the API key and data of this user live, so that one machine's programs find each other.

The key is looked for, and the first one found is used:
    --api-key-file                         a file that holds it; - is standard input
    GYOZA_API_KEY                          the key itself
    GYOZA_API_KEY_FILE                     a file that holds it
    $CREDENTIALS_DIRECTORY/gyoza_api_key   as systemd's LoadCredential=gyoza_api_key:FILE leaves it
    api_key in the user's data directory   made by a server of this user, for this machine only
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from gyoza.client.errors import CredentialsError

CREDENTIAL = "gyoza_api_key"
"""The key's name among the credentials of a systemd service."""

MAX_KEY = 4096
"""Characters of a key file; what is longer is another file."""


def data_dir() -> Path:
    """Return the user's data directory for gyoza; it may not exist yet."""
    return platformdirs.user_data_path("gyoza")


def stored_key_path() -> Path:
    """Return the file in which a server started without a key stores the one it makes."""
    return data_dir() / "api_key"


def configured_api_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the key that the environment names: itself, its file, or systemd's credential.

    Raises:
        CredentialsError: If a file that should hold it cannot be read, or is empty.
    """
    if key := environ.get("GYOZA_API_KEY", "").strip():
        return key
    if named := environ.get("GYOZA_API_KEY_FILE", ""):
        return read_key_file(named, "GYOZA_API_KEY_FILE")
    if directory := environ.get("CREDENTIALS_DIRECTORY", ""):
        credential = Path(directory) / CREDENTIAL
        if credential.exists():
            return read_key_file(str(credential), "LoadCredential")
    return None


def read_key_file(path: str, setting: str) -> str:
    """Return the key in a file.

    Args:
        path: The file.
        setting: What names it, for the sentence if it cannot be used.

    Raises:
        CredentialsError: If it cannot be read, or is empty.
    """
    try:
        with open(path, "rb") as file:
            # An error of decoding would hold what was read, for all to see.
            key = file.read(MAX_KEY + 1).decode(errors="replace").strip()
    except OSError as error:
        raise CredentialsError(
            f"The API key file {path} cannot be read ({error.strerror}); correct {setting}."
        ) from error
    if "\N{REPLACEMENT CHARACTER}" in key:
        raise CredentialsError(f"The API key file {path} does not hold text; correct {setting}.")
    if not key:
        raise CredentialsError(f"The API key file {path} is empty; put the key into it.")
    return key


def check_key(key: str) -> str:
    """Return the key if HTTP can carry it.

    Raises:
        CredentialsError: If it cannot; the sentence does not show the key.
    """
    if not (key.isascii() and key.isprintable() and len(key) <= MAX_KEY):
        raise CredentialsError(
            "The API key holds characters that HTTP cannot carry; use one line of printable ASCII."
        )
    return key


def open_to_others(path: str | None, what: str) -> str | None:
    """Return what to do if others than the file's user and group may read or change it."""
    try:
        mode = os.stat(path).st_mode if path else 0
    except OSError:
        return None
    if not mode & (stat.S_IROTH | stat.S_IWOTH):
        return None
    return f"The {what} in {path} is open to every user of this machine; `chmod o= {path}` ends it."


def key_file_in_use(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the file in which the configured key is, if it is in one."""
    if environ.get("GYOZA_API_KEY", "").strip():
        return None
    return environ.get("GYOZA_API_KEY_FILE") or None


def stored_api_key() -> str | None:
    """Return the key that a server of this user has stored, if there is one.

    Raises:
        CredentialsError: If the file holds no text.
    """
    path = stored_key_path()
    try:
        empty = not path.read_bytes().strip()
    except OSError:
        return None
    return None if empty else read_key_file(str(path), "or remove it")


def find_api_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the configured key, else the stored one, else None."""
    return configured_api_key(environ) or stored_api_key()
