"""What both clients share: where the server is, how a request is made and an answer judged."""

import json
import math
import os
import ssl
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from gyoza.client.credentials import configured_api_key, stored_api_key
from gyoza.client.endpoints import Call
from gyoza.client.errors import (
    ApiError,
    CredentialsError,
    ForeignAnswer,
    InvalidServerUrl,
    ServerUnreachable,
    UnexpectedAnswer,
)

T = TypeVar("T")

DEFAULT_URL = "http://localhost:5555"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
LOOPBACK_URLS = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Connection:
    """How to reach one server.

    Attributes:
        url: Base URL without a trailing slash.
        api_key: Sent as `X-API-Key`; None sends none.
        timeout_s: Seconds for each step of a request (connect, write, read).
        verify: False or a context for TLS that is not covered by the usual authorities.
    """

    url: str
    api_key: str | None = None
    timeout_s: float = 30.0
    verify: ssl.SSLContext | bool = True

    @classmethod
    def resolve(
        cls,
        url: str | None,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        verify: ssl.SSLContext | bool = True,
    ) -> "Connection":
        """Fill in from the environment what is not given; a given URL gets no key from there.

        Raises:
            InvalidServerUrl: If the URL is none of http or https.
            CredentialsError: If the key cannot be read or sent.
        """
        given = url is not None
        url = check_url(url or os.environ.get("GYOZA_SERVER_URL") or DEFAULT_URL)
        if api_key is None and not given:
            api_key = key_for(url)
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise CredentialsError(
                "The API key holds characters that HTTP cannot carry; use printable ASCII."
            )
        return cls(url, api_key, timeout_s, verify)

    def options(self) -> dict[str, Any]:
        """Return the arguments for httpx's clients.

        The pool is unbounded: a request that is cancelled while it waits for a free connection
        would hold a slot of a bounded one for ever (httpcore 1093). No proxy stands between this
        machine and itself, whatever the variables for proxies say.
        """
        return {
            "base_url": self.url,
            "headers": {"X-API-Key": self.api_key} if self.api_key else {},
            "timeout": self.timeout_s,
            # Without TLS there is nothing to verify, and reading all authorities takes a while.
            "verify": False if urlsplit(self.url).scheme == "http" else self.verify,
            "mounts": {f"all://{host}": None for host in LOOPBACK_URLS},
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=32),
        }

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """Return the arguments for `httpx.Client.build_request`."""
        return {
            "method": call.method,
            "url": call.path,
            "json": call.body,
            "params": call.params,
            "headers": call.headers,
            "timeout": httpx.Timeout(
                self.timeout_s,
                read=None if math.isinf(call.wait_s) else self.timeout_s + call.wait_s,
            ),
        }

    def unreachable(self, error: httpx.HTTPError) -> ServerUnreachable:
        """Return the sentence for a server that does not answer."""
        why = str(error) or type(error).__name__
        return ServerUnreachable(
            f"The server at {self.url} does not answer ({why}); "
            "start it with `gyoza server start` or set GYOZA_SERVER_URL."
        )


def check_url(url: str) -> str:
    """Return the server's base URL without a trailing slash.

    Raises:
        InvalidServerUrl: If it is none of http or https.
    """
    url = url.strip().rstrip("/")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidServerUrl(
            f"{url!r} is not the URL of a server; write it like {DEFAULT_URL} (GYOZA_SERVER_URL)."
        )
    return url


def key_for(url: str) -> str | None:
    """Return the key that the environment has for this server.

    The key that a server of this user has stored goes to this machine's servers only.
    """
    key = configured_api_key()
    if key is None and urlsplit(url).hostname in LOOPBACK:
        key = stored_api_key()
    return key


def read_answer(call: Call[T], response: httpx.Response) -> T:
    """Return what the call's answer says.

    Raises:
        ApiError: For an error status.
        UnexpectedAnswer: If a success is not what a gyoza server would send.
    """
    judge(response)
    try:
        return call.parse(response)
    except (ValueError, TypeError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"{response.request.url} did not answer as a gyoza server does; check GYOZA_SERVER_URL."
        ) from error


def judge(response: httpx.Response) -> None:
    """Raise `ApiError` with the server's sentence unless the answer is a success."""
    if response.is_success:
        return
    try:
        detail = json.loads(response.content)["detail"]
    except (ValueError, LookupError, TypeError):
        detail = None
    if isinstance(detail, str):
        raise ApiError(response, detail)
    status = f"{response.status_code} {response.reason_phrase}".rstrip()
    raise ForeignAnswer(
        response,
        f"{response.request.url} answered {status}, not in the words of a gyoza server; "
        "check GYOZA_SERVER_URL.",
    )
