"""Everything the server raises of its own; each message is one sentence for a person.

Errors:
    ServerError
      StartError          the server cannot start
        SettingsError       a setting has a value it cannot have
        ApiKeyError         the API key can be neither read nor stored
        AddressError        the address cannot be listened on
        TlsError            certificate, key or client authorities cannot be used
        DatabaseError       the database cannot be opened
      RequestError        a request is answered with an error status
        BadRequest          400: wrong inputs, or a transition the state machine has not
        Forbidden           403: the role of the key does not permit this
        NotFound            404
        Conflict            409: the run has ended, or is not held by this worker and attempt
        Full                413: the run holds as much as it may
        Malformed           422: the body is not what it should be
        NotReady            503: the server cannot do its work
"""

from typing import ClassVar


class ServerError(Exception):
    """Base of the server's errors."""


class StartError(ServerError):
    """The server cannot start."""


class SettingsError(StartError):
    """A setting has a value it cannot have."""


class ApiKeyError(StartError):
    """The API key can be neither read nor stored."""


class AddressError(StartError):
    """The address cannot be listened on."""


class TlsError(StartError):
    """Certificate, key or client authorities cannot be used."""


class DatabaseError(StartError):
    """The database cannot be opened."""


class RequestError(ServerError):
    """A request is answered with an error status.

    Attributes:
        status: The HTTP status.
    """

    status: ClassVar[int] = 500


class BadRequest(RequestError):
    """Wrong inputs, or a transition the state machine has not."""

    status = 400


class Forbidden(RequestError):
    """The role of the key does not permit this."""

    status = 403


class NotFound(RequestError):
    """Nothing has this id."""

    status = 404

    @classmethod
    def of(cls, what: str, name: str) -> "NotFound":
        """Return the error for an unknown `what` called `name`."""
        return cls(f"There is no {what} {name[:80]!r}.")


class Conflict(RequestError):
    """The run has ended, or is not held by this worker and attempt."""

    status = 409


class Full(RequestError):
    """The run holds as much as it may."""

    status = 413


class Malformed(RequestError):
    """The body is not what it should be."""

    status = 422


class NotReady(RequestError):
    """The server cannot do its work."""

    status = 503
