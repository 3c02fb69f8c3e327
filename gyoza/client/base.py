"""What both clients have in common: the server they were given."""

import ssl
from functools import cached_property

from gyoza.client.connection import Connection


class BaseClient:
    """A client of one server.

    Args:
        base_url: The server; None takes `GYOZA_SERVER_URL` and the key from the environment.
        api_key: Sent as `X-API-Key`.
        timeout: Seconds for each step of a request.
        verify: As httpx takes it: a TLS context for a server with an authority of its own.
    """

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None = None,
        timeout: float = 30.0,
        *,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._given = (base_url, api_key, timeout, verify)

    # The environment is read and TLS set up at the first call, so that importing costs nothing.
    @cached_property
    def connection(self) -> Connection:
        """Where the server is."""
        return Connection.resolve(*self._given)
