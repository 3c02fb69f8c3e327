"""Everything the client raises of its own; answers with an error status raise httpx's own type.

Errors:
    httpx.HTTPStatusError
      ApiError             the server answered with an error; says its sentence
    ClientError
      CredentialsError     the API key cannot be read
      ServerUnreachable    no answer after all retries
"""

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


class ClientError(Exception):
    """Base of the client's other errors."""


class CredentialsError(ClientError):
    """The API key cannot be read."""


class ServerUnreachable(ClientError):
    """No answer from the server after all retries."""
