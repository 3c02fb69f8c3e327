"""What both clients have in common: the server they were given, and how they are let in."""

import inspect
import os
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Generic, TypeVar, cast, get_args

import httpx

from gyoza.client.access import Access
from gyoza.client.call import Call
from gyoza.client.connection import Connection
from gyoza.client.errors import ApiError, CredentialsError, Failure, ForeignAnswer

T = TypeVar("T")
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


class PerProcess(Generic[T]):
    """Something that a process makes when it first needs it, and a forked one makes anew.

    A connection that a forked process shared with the one it comes from would bring each of them
    the answers of the other. What was made before the fork is let go and not closed: to close it
    could wait for a lock that a thread held which is not there any more.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: tuple[int, T] | None = None

    def get(self) -> T:
        """Return what this process has made, after making it if need be."""
        made = self.made
        if made is None:
            made = self._make()
            self._made = os.getpid(), made
        return made

    @property
    def made(self) -> T | None:
        """What this process has made; None if nothing."""
        return self._made[1] if self._made and self._made[0] == os.getpid() else None


class BaseClient(ABC, Generic[Http]):
    """A client of one server, which asks it by one of httpx's clients.

    Args:
        base_url: The server; None takes all from the environment, and an `Access` what it leaves
            open. A URL gets nothing from there.
        api_key: Sent as `X-API-Key`.
        timeout: Seconds for each step of a request. A call may take twice as long in all, or ten
            times if its answer may be large.
        verify: A TLS context of your own.
    """

    def __init__(
        self,
        base_url: str | Access | None,
        api_key: str | None = None,
        timeout: float = 30.0,
        *,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        if isinstance(base_url, Access):
            self._access = base_url
        elif base_url is None:
            self._access = Access(api_key=api_key)
        else:
            self._access = Access(url=base_url, api_key=api_key, environ=None)
        self._timeout = timeout
        self._verify = verify
        self._opened = PerProcess(self._open)

    @abstractmethod
    def _open(self) -> Http: ...

    @property
    def _http(self) -> Http:
        return self._opened.get()

    # The environment is read and TLS set up at the first call, so that importing costs nothing.
    @cached_property
    def connection(self) -> Connection:
        """Where the server is."""
        return Connection.resolve(self._access, self._timeout, self._verify)

    def _is_renewed(self, used: Connection, failure: Failure) -> bool:
        """Look for credentials that were changed meanwhile; return whether there is another key.

        Args:
            used: What the request was made with.
            failure: What became of it.
        """
        if isinstance(failure, httpx.TransportError):
            used.reload_certificates()
        if not isinstance(failure, ApiError) or failure.status != 401:
            return False
        try:
            key = self._access.find_key()
        except CredentialsError:  # in the middle of being written
            return False
        if key != self.connection.api_key:
            self.connection = replace(self.connection, api_key=key)
        # A refusal that is not the server's says nothing about the key.
        return key != used.api_key and not isinstance(failure, ForeignAnswer)


def sign(
    method: Callable[..., Any], describe: Callable[..., Call[Any]], answer: Any = None
) -> None:
    """Give a client's method the signature of the function that describes its call.

    Args:
        method: The method.
        describe: The function.
        answer: What the method returns, if not what the call does.
    """
    described = inspect.signature(describe)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    answer = answer or get_args(described.return_annotation)[0]
    cast("Any", method).__signature__ = described.replace(
        parameters=[own, *described.parameters.values()], return_annotation=answer
    )
