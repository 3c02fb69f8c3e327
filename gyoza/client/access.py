"""What decides how a server is reached: flags first, then variables, then defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gyoza.client.credentials import (
    check_key,
    configured_api_key,
    key_file_in_use,
    open_to_others,
    read_key_file,
    stored_api_key,
)
from gyoza.client.tls import TlsFiles

DEFAULT_URL = "http://localhost:5555"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, kw_only=True)
class Access:
    """A server, and what makes it and its client trust each other; None is left to a variable.

    Attributes:
        url: The server; GYOZA_SERVER_URL.
        api_key: Its key; see `gyoza.client.credentials`.
        api_key_file: A file that holds the key; comes before all variables.
        ca_file: Authorities believed in place of the usual ones; GYOZA_CA_FILE.
        client_cert: The certificate for servers that want one; GYOZA_CLIENT_CERT.
        client_key: Its private key; GYOZA_CLIENT_KEY.
        environ: The variables; None for neither these nor any stored key.
    """

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_file: str | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    environ: Mapping[str, str] | None = field(
        default_factory=lambda: os.environ, repr=False, compare=False
    )

    @property
    def address(self) -> str:
        """The server's URL as it was given, with whatever secrets it holds."""
        return self.url or self._variable("GYOZA_SERVER_URL") or DEFAULT_URL

    def find_key(self) -> str | None:
        """Return the key for this server as it is now; files are read anew.

        The key that a server of this user has stored goes to this machine's servers only.

        Raises:
            CredentialsError: If it cannot be read or sent.
        """
        key = self.api_key
        if key is None and self.api_key_file:
            key = read_key_file(self.api_key_file, "--api-key-file")
        if key is None and self.environ is not None:
            key = configured_api_key(self.environ)
            if key is None and urlsplit(self.address).hostname in LOOPBACK:
                key = stored_api_key()
        return check_key(key) if key else None

    @property
    def warnings(self) -> list[str]:
        """What is not as it should be, though it works."""
        key_file = self.api_key_file
        if key_file is None and self.environ is not None:
            key_file = key_file_in_use(self.environ)
        found = [
            None if self.api_key else open_to_others(key_file, "API key"),
            open_to_others(self.tls.client_key or self.tls.client_cert, "client key"),
        ]
        return [sentence for sentence in found if sentence]

    @property
    def tls(self) -> TlsFiles:
        """The files for TLS."""
        return TlsFiles(
            self.ca_file or self._variable("GYOZA_CA_FILE"),
            self.client_cert or self._variable("GYOZA_CLIENT_CERT"),
            self.client_key or self._variable("GYOZA_CLIENT_KEY"),
        )

    def _variable(self, name: str) -> str | None:
        return (self.environ or {}).get(name, "").strip() or None
