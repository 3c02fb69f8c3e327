"""Service tasks of the server: whatever one of them meets, it says so and goes on."""

import logging
from collections.abc import Awaitable, Callable

import trio
from sqlalchemy.exc import DBAPIError

from gyoza.client import ClientError
from gyoza.server.errors import ServerError

FIRST_S, LONGEST_S = 1.0, 30.0
"""Seconds until the first retry after an error, and the most of them; they double in between."""

_log = logging.getLogger(__name__)


async def repeat(what_fails: str, action: Callable[[], Awaitable[float]]) -> None:
    """Do something again and again, until cancelled; only the start of a server may give up.

    Args:
        what_fails: The beginning of the sentence for an error, without its full stop.
        action: Returns the seconds until it is to be called again. What it raises is logged, in one
            line and once for as long as it stays the same, and it is called again.
    """
    retry_s, told = FIRST_S, ""
    while True:
        try:
            wait_s = await action()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on
            why = cause_of(error)
            if why != told:
                _log.warning("%s (%s); the server keeps what it has and retries.", what_fails, why)
            wait_s, told = retry_s, why
            retry_s = min(2 * retry_s, LONGEST_S)
        else:
            retry_s, told = FIRST_S, ""
        await trio.sleep(wait_s)


def cause_of(error: Exception) -> str:
    """Return what a person should know of an error, in one line; no values of a statement."""
    known = error.orig if isinstance(error, DBAPIError) else error
    ours = isinstance(error, ClientError | ServerError)  # these are whole sentences
    said = str(known).rstrip(".") if ours else f"{type(known).__name__}: {known}"
    return " ".join(said.split())[:300]
