"""The worker's client: a call is one try of bounded length, and the loop around it the retry."""

from dataclasses import replace
from typing import TypeVar

import trio

from gyoza.client import AsyncGyozaClient, ServerUnreachable
from gyoza.client.call import Call
from gyoza.client.retry import NEVER
from gyoza.worker.lacks import lack_of

T = TypeVar("T")

LIMIT_S = 45.0
"""Seconds that a call may take besides those for which the server was asked to wait."""


class WorkerClient(AsyncGyozaClient):
    """The client of a worker; see `AsyncGyozaClient`.

    A call that the server, or what is on the way to it, draws out is given up after `LIMIT_S`, so
    that no other waits longer behind it.
    """

    async def send(self, call: Call[T]) -> T:
        """Send a call once.

        Raises:
            ApiError: For an answer that is no success.
            ClientError: If there is no answer, or none in time.
        """
        limit_s = call.wait_s + LIMIT_S
        try:
            with trio.move_on_after(limit_s):
                return await super().send(replace(call, retry=NEVER))
        except (OSError, MemoryError, RuntimeError) as error:
            if (lack := lack_of(error)) is None:
                raise
            raise ServerUnreachable(
                f"The server cannot be asked: this worker lacks {lack}."
            ) from error
        raise ServerUnreachable(
            f"The server at {self.connection.url} has not answered within {limit_s:g} s."
        )
