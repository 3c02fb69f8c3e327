"""A certificate authority for tests: certificates as files, and what servers need of them."""

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import trustme


@dataclass
class Files:
    """A certificate chain and its key."""

    cert: str
    key: str


class Authority:
    """Issues certificates below a folder; its own is the file `ca_file`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._issued = 0
        self._ca = trustme.CA()
        folder.mkdir(exist_ok=True)
        self.ca_file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, name: str, until: datetime | None = None) -> Files:
        """Issue a certificate for a host or a person."""
        self._issued += 1
        base = self._folder / str(self._issued)
        issued = self._ca.issue_cert(name, not_after=until)
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        files = Files(f"{base}.cert.pem", f"{base}.key.pem")
        Path(files.cert).write_bytes(chain)
        Path(files.key).write_bytes(issued.private_key_pem.bytes())
        Path(files.key).chmod(0o600)
        return files

    def server(
        self,
        name: str = "127.0.0.1",
        *,
        until: datetime | None = None,
        clients_of: "Authority | None" = None,
    ) -> ssl.SSLContext:
        """Return what a server of that name needs.

        Args:
            name: Host name or address.
            until: When its certificate expires.
            clients_of: Whose certificates clients must show.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        files = self.issue(name, until)
        context.load_cert_chain(files.cert, files.key)
        if clients_of is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients_of.ca_file)
        return context


def environment(ca: str | None = None, own: Files | None = None) -> dict[str, Any]:
    """Return the variables by which a client is told of them."""
    found = {"GYOZA_CA_FILE": ca}
    if own is not None:
        found |= {"GYOZA_CLIENT_CERT": own.cert, "GYOZA_CLIENT_KEY": own.key}
    return {name: value for name, value in found.items() if value}
