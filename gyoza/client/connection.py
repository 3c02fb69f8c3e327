"""What both clients share: where the server is, and how a request is made."""

import base64
import ssl
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx

from gyoza.client.access import DEFAULT_URL, LOOPBACK, Access
from gyoza.client.call import SMALL, Call
from gyoza.client.errors import (
    CredentialsError,
    Failure,
    InsecureServer,
    InvalidServerUrl,
    ServerUnreachable,
)
from gyoza.client.proxies import proxy_of
from gyoza.client.tls import TlsFiles, why_not_secure

KEY_HEADER = "X-API-Key"
NO_FILES = TlsFiles()
HUNG_UP = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class Credentials(httpx.Auth):
    """Puts the credentials on a request for as long as it is under way, and on nothing else.

    What is left of a request, such as in an error, shows none of them.
    """

    def __init__(self, api_key: str | None, userinfo: str | None) -> None:
        self._headers = {KEY_HEADER: api_key} if api_key else {}
        if userinfo:
            self._headers["Authorization"] = f"Basic {base64.b64encode(userinfo.encode()).decode()}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See `httpx.Auth`."""
        request.headers.update(self._headers)
        try:
            yield request
        finally:
            for name in self._headers:
                request.headers.pop(name, None)


@dataclass(frozen=True)
class Connection:
    """How to reach one server.

    Attributes:
        url: Base URL without a trailing slash and without credentials.
        api_key: Sent as `X-API-Key`; None sends none.
        timeout_s: Seconds for each step of a request (connect, write, read).
        tls: Verifies the server; None for plain HTTP.
        tls_files: What `tls` was made of.
        userinfo: `user:password` from the URL, for a proxy in front of the server.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    tls_files: TlsFiles = NO_FILES
    userinfo: str | None = field(default=None, repr=False)

    @classmethod
    def resolve(
        cls, access: Access, timeout_s: float = 30.0, tls: ssl.SSLContext | None = None
    ) -> "Connection":
        """Find what is left to the environment, and read the files.

        Args:
            access: The server, and what makes both trust each other.
            timeout_s: Seconds for each step of a request.
            tls: In place of the files.

        Raises:
            InvalidServerUrl: If the URL is none of http or https.
            CredentialsError: If key or certificates cannot be read or sent.
        """
        url, userinfo = split_url(access.address)
        files = NO_FILES if tls else access.tls
        if not url.startswith("https:"):
            # Reading all authorities takes a while, and there is nothing to verify.
            tls = None
        elif tls is None:
            tls = files.context()
        return cls(url, access.find_key(), timeout_s, tls, files, userinfo)

    def options(self) -> dict[str, Any]:
        """Return the arguments for httpx's clients.

        The pool is unbounded: a request that is cancelled while it waits for a free connection
        would hold a slot of a bounded one for ever (httpcore 1093). Redirects are not followed: the
        key goes to no server but the one that was named.
        """
        return {
            "base_url": self.url,
            "timeout": self.timeout_s,
            # A context that trusts nobody, should TLS come up where none was asked for.
            "verify": self.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            "proxy": proxy_of(httpx.URL(self.url)),
            "trust_env": False,  # of which the proxies, found above, are all that is left
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=32),
            "follow_redirects": False,
        }

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """Return the arguments for `httpx.Client.stream`."""
        return {
            "method": call.method,
            "url": call.path,
            "json": call.body,
            "content": call.text,
            "params": call.params,
            # Compressed, a small answer could become a very large one.
            "headers": {"Accept-Encoding": "identity", **call.headers},
            "auth": Credentials(self.api_key, self.userinfo),
            "timeout": httpx.Timeout(self.timeout_s, read=self.timeout_s + call.wait_s),
        }

    def limit_s(self, call: Call[Any]) -> float:
        """Return the seconds that a call may take in all, however steadily its answer drips."""
        return call.wait_s + self.timeout_s * (2 if call.max_bytes <= SMALL else 10)

    def reload_certificates(self) -> None:
        """Let new connections use what the files for TLS hold by now, if they can be used."""
        if self.tls and self.tls_files != NO_FILES:
            with suppress(CredentialsError):  # half of them is new: the next time, then
                self.tls_files.context()
                self.tls_files.load_into(self.tls)

    def told(self, failure: Failure) -> Exception:
        """Return the error that tells what became of a request."""
        if not isinstance(failure, httpx.TransportError):
            return failure
        error = self.unreachable(failure)
        error.__cause__ = failure
        return error

    def unreachable(self, error: httpx.HTTPError) -> ServerUnreachable:
        """Return the sentence for a server that does not answer."""
        if sentence := why_not_secure(self.url, error):
            return InsecureServer(sentence)
        why = str(error) or type(error).__name__
        if proxy_of(httpx.URL(self.url)):
            return ServerUnreachable(
                f"The server at {self.url} does not answer through the proxy ({why}); "
                "check HTTPS_PROXY, HTTP_PROXY, NO_PROXY and GYOZA_SERVER_URL."
            )
        # A server that refuses a certificate may be gone before its reason is read.
        if self.tls and isinstance(error, HUNG_UP):
            return ServerUnreachable(
                f"The server at {self.url} hangs up ({why}); see whether it accepts this "
                "client's certificate (GYOZA_CLIENT_CERT, GYOZA_CLIENT_KEY)."
            )
        if isinstance(error, HUNG_UP):
            return ServerUnreachable(
                f"The server at {self.url} hangs up ({why}); if it speaks TLS, write "
                "https:// in GYOZA_SERVER_URL."
            )
        todo = "set GYOZA_SERVER_URL to where it is"
        if httpx.URL(self.url).host in LOOPBACK:
            todo = "start one with `gyoza up` or `gyoza server start`, or set GYOZA_SERVER_URL"
        return ServerUnreachable(f"The server at {self.url} does not answer ({why}); {todo}.")


def split_url(url: str) -> tuple[str, str | None]:
    """Return the server's base URL without a trailing slash and credentials, and these.

    Raises:
        InvalidServerUrl: If it is none of http or https; the sentence shows no credentials.
    """
    url = url.strip().rstrip("/")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        scheme, mark, rest = url.rpartition("://")
        shown = scheme + mark + (f"***@{rest.rpartition('@')[2]}" if "@" in rest else rest)
        raise InvalidServerUrl(
            f"{shown!r} is not the URL of a server; write it like {DEFAULT_URL} (GYOZA_SERVER_URL)."
        )
    userinfo = unquote(parsed.userinfo.decode()) or None
    return str(parsed.copy_with(userinfo=b"")).rstrip("/"), userinfo
