"""The server's own key: found, or made and stored for the other programs of this user."""

import contextlib
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from gyoza.client.credentials import (
    check_key,
    configured_api_key,
    key_file_in_use,
    open_to_others,
    read_key_file,
    stored_api_key,
    stored_key_path,
)
from gyoza.client.errors import CredentialsError
from gyoza.server.errors import ApiKeyError
from gyoza.server.settings import ServerSettings

SAFE_KEY = 20
"""Characters of a key that nobody guesses."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ApiKey:
    """A key and where it came from, in words for a person."""

    value: str
    origin: str


def ensure_api_key(settings: ServerSettings) -> ApiKey:
    """Return the key of the settings, the environment or the stored file, or make and store one.

    Raises:
        ApiKeyError: If a key file cannot be read, is empty or cannot be written.
    """
    if settings.api_key:
        return ApiKey(settings.api_key, "given by the settings")
    try:
        if settings.api_key_file:
            return ApiKey(_key_in(settings.api_key_file), f"from {settings.api_key_file}")
        if (configured := configured_api_key()) is not None:
            return ApiKey(configured, "from the environment")
        path = stored_key_path()
        if stored := stored_api_key():
            return ApiKey(check_key(stored), f"from {path}")
    except CredentialsError as error:
        raise ApiKeyError(str(error)) from error
    try:
        return _store_new_key(path)
    except OSError as error:
        raise ApiKeyError(
            f"A new API key cannot be stored in {path} ({error.strerror}); set GYOZA_API_KEY."
        ) from error


def key_in_file(settings: ServerSettings) -> str | None:
    """Return the key that a file holds now, if it was found in one.

    Raises:
        CredentialsError: If the file cannot be read, or holds no key.
    """
    if settings.api_key:
        return None
    if settings.api_key_file:
        return _key_in(settings.api_key_file)
    found = configured_api_key() or stored_api_key()
    return check_key(found) if found else None


def warn_of_risks(settings: ServerSettings, key: ApiKey) -> None:
    """Log what is not as it should be, though it works: short keys, files open to others."""
    stored = stored_key_path() if key.origin.endswith(str(stored_key_path())) else None
    key_file = settings.api_key_file or key_file_in_use() or stored
    found = [
        f"The API key has fewer than {SAFE_KEY} characters and can be guessed; use a longer one, "
        "as `openssl rand -hex 32` makes it."
        if len(key.value) < SAFE_KEY
        else None,
        None if settings.api_key else open_to_others(str(key_file or ""), "API key"),
        open_to_others(settings.tls_keyfile, "TLS key"),
        open_to_others(str(settings.database_path), "database, with the secrets of runs,"),
    ]
    for sentence in filter(None, found):
        logger.warning("%s", sentence)


def _key_in(path: str) -> str:
    return check_key(read_key_file(path, "--api-key-file"))


def _store_new_key(path: Path) -> ApiKey:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = secrets.token_urlsafe(32)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key + "\n")
        # A link appears whole or not at all, and never over a key another server just stored.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
            return ApiKey(key, f"made now and stored in {path}")
    finally:
        draft.unlink()
    return ApiKey(path.read_text(encoding="utf-8").strip(), f"from {path}")
