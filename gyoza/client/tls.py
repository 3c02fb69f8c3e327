"""TLS to the server: whose word is taken, what is shown for oneself, and what a failure means."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from gyoza.client.errors import CredentialsError

# What OpenSSL calls it, for certificates that are well but for one thing.
UNKNOWN_AUTHORITY = {2, 18, 19, 20, 21}
NOT_YET_VALID, EXPIRED = 9, 10
OTHER_NAME = {62, 64}


@dataclass(frozen=True)
class TlsFiles:
    """PEM files that change what TLS does by itself.

    Attributes:
        ca_file: Authorities that are believed in place of the usual ones.
        client_cert: The certificate chain shown to a server that asks for one.
        client_key: Its private key, unless that is in the same file.
    """

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context that verifies certificate and name, and speaks TLS 1.2 at least.

        Raises:
            CredentialsError: If one of the files cannot be used.
        """
        if self.ca_file is None:
            context = httpx.create_ssl_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load_into(context)
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Load the files; connections that are made from now on use what they hold.

        Raises:
            CredentialsError: If one of the files cannot be used.
        """
        if self.client_key and not self.client_cert:
            raise CredentialsError(
                "There is a client key but no certificate; set GYOZA_CLIENT_CERT (--client-cert)."
            )
        if self.ca_file:
            _check_readable(self.ca_file, "authorities", "GYOZA_CA_FILE (--ca-file)")
            try:
                context.load_verify_locations(self.ca_file)
            except (ssl.SSLError, OSError) as error:
                raise CredentialsError(
                    f"The file {self.ca_file} holds no certificates in PEM; "
                    "correct GYOZA_CA_FILE (--ca-file)."
                ) from error
        if self.client_cert:
            self._load_own(context, self.client_cert)

    def _load_own(self, context: ssl.SSLContext, cert: str) -> None:
        variables = "GYOZA_CLIENT_CERT (--client-cert) and GYOZA_CLIENT_KEY (--client-key)"
        _check_readable(cert, "client certificate", "GYOZA_CLIENT_CERT (--client-cert)")
        if self.client_key:
            _check_readable(self.client_key, "client key", "GYOZA_CLIENT_KEY (--client-key)")
        key = self.client_key or cert

        def no_terminal() -> str:
            raise CredentialsError(
                f"The client key {key} is encrypted, and a service cannot ask for its password; "
                "give it one without, readable by its user alone."
            )

        try:
            context.load_cert_chain(cert, self.client_key, password=no_terminal)
        except (ssl.SSLError, OSError) as error:
            raise CredentialsError(
                f"{cert} and {key} are no client certificate and its key in PEM "
                f"({getattr(error, 'reason', None) or error}); correct {variables}."
            ) from error


def _check_readable(path: str, what: str, variable: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise CredentialsError(
            f"The file {path} with the {what} cannot be read ({error.strerror}); "
            f"correct {variable}."
        ) from error


def why_not_secure(url: str, error: BaseException) -> str | None:
    """Return a sentence if TLS is why the server cannot be reached.

    Args:
        url: The server's address as a person may see it.
        error: What the transport raised.
    """
    cause = next((one for one in _chain(error) if isinstance(one, ssl.SSLError)), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _about_its_certificate(url, cause)
    if cause is None:
        return None
    reason = (cause.reason or str(cause)).replace("_", " ").lower()
    if "wrong version number" in reason or "http request" in reason:
        return f"What answers at {url} speaks no TLS; correct GYOZA_SERVER_URL."
    if "alert" in reason and any(word in reason for word in ("certificate", "unknown ca")):
        return (
            f"The server at {url} does not accept this client's certificate ({reason}); "
            "set GYOZA_CLIENT_CERT and GYOZA_CLIENT_KEY to one that it knows."
        )
    return f"No secure connection to the server at {url} comes about ({reason})."


def _about_its_certificate(url: str, error: ssl.SSLCertVerificationError) -> str:
    code, words = error.verify_code, error.verify_message.rstrip(".")
    if code in UNKNOWN_AUTHORITY:
        return (
            f"The certificate of the server at {url} is from an authority that is not known here; "
            "name the authority's file in GYOZA_CA_FILE (--ca-file)."
        )
    if code in OTHER_NAME:
        return (
            f"The certificate of the server at {url} is for another name ({words}); "
            "write one of its names in GYOZA_SERVER_URL, or renew it."
        )
    if code in (EXPIRED, NOT_YET_VALID):
        return (
            f"The certificate of the server at {url} is not valid now ({words}); "
            "renew it there, or set this machine's clock."
        )
    return f"The certificate of the server at {url} cannot be trusted ({words})."


def _chain(error: BaseException | None) -> Iterator[Any]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
