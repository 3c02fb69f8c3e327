"""Everything the client raises of its own; answers with an error status raise httpx's own type.

Errors:
    httpx.HTTPStatusError
      ApiError             the server answered with an error; says its sentence
        ForeignAnswer      an error without one: a proxy or no gyoza server
    ClientError
      CredentialsError     the API key, a certificate or its key cannot be read or sent
      InvalidServerUrl     the server's address is no http or https URL
      InvalidProxy         a variable for proxies names none
      ServerUnreachable    no answer after all retries
        InsecureServer     TLS does not come about: one of both does not trust the other
      UnexpectedAnswer     a success that no gyoza server would send
      LogIncomplete        the end of a log has never come to the server
"""

from typing import Any

import httpx


class ApiError(httpx.HTTPStatusError):
    """The server answered with an error status.

    Attributes:
        status: The HTTP status.
        detail: The server's one sentence, or the status line if it sent none.
    """

    def __init__(self, response: httpx.Response, detail: str) -> None:
        super().__init__(detail, request=response.request, response=response)
        self.status = response.status_code
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be copied and pickled, as a pool of processes does with what its workers raise."""
        return type(self), (self.response, self.detail)

    @property
    def says_unknown(self) -> bool:
        """Whether a gyoza server, and not something on the way to it, knows no such thing."""
        return self.status == 404


class ForeignAnswer(ApiError):
    """An error status without the sentence that a gyoza server would say."""

    @property
    def says_unknown(self) -> bool:
        """Never: a proxy whose server is away may say 404, too."""
        return False


class ClientError(Exception):
    """Base of the client's other errors."""


class CredentialsError(ClientError):
    """The API key, a certificate or its key cannot be read or sent."""


class InvalidServerUrl(ClientError):
    """The server's address is no http or https URL."""


class InvalidProxy(ClientError):
    """A variable for proxies names none that can be used."""


class ServerUnreachable(ClientError):
    """No answer from the server after all retries."""


class InsecureServer(ServerUnreachable):
    """No TLS with the server: one of both does not trust the other."""


class UnexpectedAnswer(ClientError):
    """The server answered with success, but not as a gyoza server does."""


class LogIncomplete(ClientError):
    """The attempt is over, and the end of its log has never come to the server.

    Attributes:
        text: What there is of it, from `get_logs`; empty where the text was given before.
    """

    def __init__(self, sentence: str, text: str = "") -> None:
        super().__init__(sentence)
        self.text = text


Failure = httpx.TransportError | ApiError | UnexpectedAnswer
"""What may become of a request in place of an answer."""
