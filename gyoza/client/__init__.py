"""The client of the server, blocking and for Trio.

Example:
    >>> from gyoza.client import gyoza_client
    >>> run = gyoza_client.create_run("my-image", {"n": 1})
"""

from gyoza.client.access import Access
from gyoza.client.blocking import GyozaClient
from gyoza.client.errors import (
    ApiError,
    ClientError,
    CredentialsError,
    ForeignAnswer,
    InsecureServer,
    InvalidProxy,
    InvalidServerUrl,
    LogIncomplete,
    ServerUnreachable,
    UnexpectedAnswer,
)
from gyoza.client.log_reading import LogPiece
from gyoza.client.trio_client import AsyncGyozaClient

gyoza_client = GyozaClient(None)
"""The client of the server that the environment names."""

__all__ = [
    "Access",
    "ApiError",
    "AsyncGyozaClient",
    "ClientError",
    "CredentialsError",
    "ForeignAnswer",
    "GyozaClient",
    "InsecureServer",
    "InvalidProxy",
    "InvalidServerUrl",
    "LogIncomplete",
    "LogPiece",
    "ServerUnreachable",
    "UnexpectedAnswer",
    "gyoza_client",
]
