"""Outages of the server while somebody follows a run: what they are, and who hears of them."""

from collections.abc import Callable

from gyoza.client import ApiError, ClientError, ForeignAnswer, ServerUnreachable, UnexpectedAnswer
from gyoza.client.log_reading import Tell
from gyoza.client.retry import LATER

PATIENCE_S = 300.0
"""Seconds a server that is away is waited for; `gyoza --help` says the same."""


def is_away(error: ApiError | ClientError) -> bool:
    """Whether it is for the moment only that the server has not answered."""
    if isinstance(error, ApiError) and not isinstance(error, ForeignAnswer):
        return error.status in LATER
    return isinstance(error, ForeignAnswer | ServerUnreachable | UnexpectedAnswer)


class Outages:
    """Says once that the server is waited for, and once that it is back, whoever notices.

    Args:
        say: Is called with the sentences.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._waiting: set[Tell] = set()

    def teller(self) -> Tell:
        """Return what one who waits calls."""

        def tell(failure: Exception | None) -> None:
            before = bool(self._waiting)
            if failure is None:
                self._waiting.discard(tell)
            else:
                self._waiting.add(tell)
            if failure is not None and not before:
                self._say(
                    f"The server is away, waiting for it up to {PATIENCE_S / 60:g} minutes:"
                    f" {failure}"
                )
            elif before and not self._waiting:
                self._say("The server is back.")

        return tell
