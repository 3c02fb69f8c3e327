"""Reading a log to its end, however often the answer is cut: what both clients have in common.

A server sends events, each of which tells the offset after its text, and `end` as the last of them:
a stream without `end` was cut, and goes on at that offset. An older or a small server sends plain
text, which ends with the answer.
"""

import codecs
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from gyoza.client.answers import check_encoding, judge, unexpected
from gyoza.client.call import Call
from gyoza.client.connection import Connection
from gyoza.client.errors import Failure, LogIncomplete, ServerUnreachable, UnexpectedAnswer
from gyoza.client.event_stream import Event, EventReader
from gyoza.client.retry import FOLLOW, READ
from gyoza.models.limits import LOG_BYTES

EVENTS, TEXT = "text/event-stream", "text/plain"
ACCEPT = {"Accept": f"{EVENTS}, {TEXT};q=0.5"}
ATTEMPT = "Gyoza-Attempt"

PATIENCE_S = 300.0
"""Seconds without success after which a log is given up, unless its reader says otherwise."""

SILENCE_S = 60.0
"""Seconds without a word after which a stream is asked for anew; a server says one every 15 s."""

EMPTY_PAUSE_S = 1.0
"""Seconds until a stream is asked for anew that was cut before it had brought anything."""

Tell = Callable[[Exception | None], None]
"""Hears what is wrong when waiting for the server begins, and None when it is back."""


@dataclass(frozen=True)
class LogPiece:
    """Some text of a log.

    Attributes:
        text: Of whole characters.
        attempt: Whose log it is; None if the server does not say.
        start: Bytes of the log before the text.
        offset: Bytes of the log up to its end.
    """

    text: str
    attempt: int | None
    start: int
    offset: int


class LogReading:
    """Where somebody is who reads a log.

    Args:
        run_id: The run.
        attempt: Whose log; None for the one that is the current one at the first answer.
        offset: Bytes of the log before what is wanted.
        follow: Go on while the attempt is under way.
        patience_s: Seconds without success until it is given up.
        tell: Hears of outages.
        whole: The text is of use as a whole only: what has come can come again, and a server that
            is not there is tried as often as for other reads.

    Attributes:
        ended: The end has come.
    """

    def __init__(
        self,
        run_id: str,
        attempt: int | None = None,
        offset: int = 0,
        *,
        follow: bool = False,
        patience_s: float = PATIENCE_S,
        tell: Tell | None = None,
        whole: bool = False,
    ) -> None:
        self._run_id = run_id
        self._attempt = attempt
        self._first = self._offset = offset
        self._follow = follow
        self._patience_s = patience_s
        self._tell = tell
        self._whole = whole
        self._events: EventReader | None = EventReader()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._failures = 0  # since the last success
        self._fails_since: float | None = None
        self._told = False  # of the outage
        self._is_heard = False  # since the last failure
        self._is_empty = False  # the last answer, so far
        self._text_at = time.monotonic()
        self._is_short = False
        self.ended = False

    def request(self, connection: Connection) -> dict[str, Any]:
        """Return the arguments for `httpx.Client.stream`."""
        told = {"attempt": self._attempt, "offset": self._offset, "follow": self._follow or None}
        call = Call(
            "GET",
            f"/runs/{quote(self._run_id, safe='')}/logs",
            judge,
            params={name: value for name, value in told.items() if value},
            headers=ACCEPT,
        )
        timeout = httpx.Timeout(connection.timeout_s, read=SILENCE_S)
        return {**connection.request(call), "timeout": timeout}

    def begin(self, response: httpx.Response) -> None:
        """Take in the head of a success.

        Raises:
            UnexpectedAnswer: If no gyoza server would send it.
        """
        check_encoding(response)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == EVENTS:
            self._events = EventReader()
            told = response.headers.get(ATTEMPT, "")
            self._attempt = int(told) if told.isdecimal() else self._attempt
        elif kind == TEXT:
            self._events = None
            # Such a server says nothing while there is no text.
            response.request.extensions["timeout"]["read"] = None
        else:
            raise unexpected(response)
        self._is_empty = True
        self.heard()

    def heard(self) -> None:
        """Note that the server is there."""
        self._is_heard = True
        if self._told and self._tell is not None:
            self._tell(None)
        self._told = False

    def feed(self, part: bytes) -> Iterator[LogPiece]:
        """Yield the text that a part of the body brings.

        Raises:
            UnexpectedAnswer: If it makes no sense.
            httpx.ReadTimeout: If the server never comes to an end.
        """
        for text, offset in self._read(part):
            piece = LogPiece(text, self._attempt, self._offset, offset)
            self._offset = offset
            self._is_empty, self._failures, self._fails_since = False, 0, None
            yield piece
            self._text_at = time.monotonic()  # whoever reads may have taken his time
        if not self._follow and time.monotonic() - self._text_at > self._patience_s:
            raise httpx.ReadTimeout(f"no text for {self._patience_s:g} s")

    def _read(self, part: bytes) -> Iterator[tuple[str, int]]:
        if self._events is None:
            text = self._decoder.decode(part)
            if text:
                yield text, self._offset + len(text.encode())
            return
        try:
            for event in self._events.feed(part):
                if self.ended:
                    return
                if event.kind == "end":
                    self._end(json.loads(event.data))
                elif event.kind == "message":
                    yield _text(event), int(event.id)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise UnexpectedAnswer(
                f"The log of run {self._run_id} does not come as a gyoza server sends it ({error});"
                " check GYOZA_SERVER_URL and any proxy on the way."
            ) from error

    def _end(self, told: dict[str, Any]) -> None:
        self._is_short = not told["complete"] and not told.get("under_way")
        self.ended = True

    def finish(self) -> Iterator[LogPiece]:
        """Take in the end of the body; yield what is left.

        Raises:
            httpx.RemoteProtocolError: If it was cut.
        """
        if self._events is not None:
            raise httpx.RemoteProtocolError("the stream of the log was cut")
        self.ended = True
        if rest := self._decoder.decode(b"", True):
            yield LogPiece(rest, self._attempt, self._offset, self._offset + len(rest.encode()))

    def wait_s(self, failure: Failure, connection: Connection) -> float:
        """Return the seconds until the server is to be asked anew.

        Raises:
            ApiError: If the server refuses.
            ClientError: If it is given up.
        """
        if self._is_heard and not isinstance(failure, UnexpectedAnswer):
            self._failures = 0
            if self._follow:
                self._fails_since = None
        self._is_heard = False
        self._failures += 1
        now = time.monotonic()
        self._fails_since = self._fails_since or now
        wait = (READ if self._whole else FOLLOW).delay_s(self._failures, failure)
        if wait is None or not self._can_go_on:
            raise connection.told(failure)
        if now - self._fails_since >= self._patience_s:
            raise self._given_up(connection.told(failure)) from failure
        if self._events is None:
            self._offset = self._first
            self._decoder.reset()
        if self._failures == 2 and self._tell is not None:
            self._tell(connection.told(failure))
            self._told = True
        return max(wait, EMPTY_PAUSE_S) if self._is_empty else wait

    @property
    def _can_go_on(self) -> bool:
        """Whether no text would come again that somebody has already."""
        return self._whole or self._events is not None or self._offset == self._first

    def _given_up(self, why: Exception) -> ServerUnreachable:
        return ServerUnreachable(
            f"Run {self._run_id} goes on, but nothing of its log came for {self._patience_s:g} s: "
            f"{str(why).rstrip('.')}; `gyoza runs logs --follow {self._run_id}` follows it again."
        )

    def check_whole(self, text: str = "") -> None:
        """Check that the log that has ended is all there.

        Args:
            text: What has come of it.

        Raises:
            LogIncomplete: If it is not.
        """
        if self._is_short:
            raise LogIncomplete(
                f"The end of the log of run {self._run_id} is missing: its worker was lost, or has "
                "sent nothing for two minutes, before all of it had come; should the worker come "
                f"back, `gyoza runs logs {self._run_id}` has the rest.",
                text,
            )


class WholeLog:
    """Gathers the pieces of a log, which may begin once more."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._size = 0

    def add(self, piece: LogPiece) -> None:
        """Take in the next piece.

        Raises:
            UnexpectedAnswer: If it becomes larger than any log of a gyoza server.
        """
        if piece.start == 0:
            self._texts, self._size = [], 0
        self._texts.append(piece.text)
        self._size += len(piece.text)
        if self._size > LOG_BYTES:
            raise UnexpectedAnswer(
                f"The log is longer than {LOG_BYTES} bytes, which no gyoza server keeps; "
                "check GYOZA_SERVER_URL."
            )

    @property
    def text(self) -> str:
        """The text."""
        return "".join(self._texts)


def _text(event: Event) -> str:
    text: Any = json.loads(event.data)
    if not isinstance(text, str):
        raise TypeError("text is no string")
    return text
