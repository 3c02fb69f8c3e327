"""Answers of the server: read up to a limit, judged, and understood. The server may be hostile."""

import json
from contextlib import suppress
from typing import Any, TypeVar

import httpx

from gyoza.client.call import SMALL, Call
from gyoza.client.errors import ApiError, ForeignAnswer, UnexpectedAnswer

T = TypeVar("T")

MAX_SENTENCE = 1000
"""Characters of an error's sentence that are told on."""


class Body:
    """Gathers the body of an answer.

    Args:
        response: Whose body is read.
        max_bytes: What is larger is refused.

    Raises:
        UnexpectedAnswer: If it is compressed, which no client asks for.
    """

    def __init__(self, response: httpx.Response, max_bytes: int) -> None:
        self._response = response
        self._max_bytes = max_bytes if response.is_success else SMALL
        self._content = bytearray()
        check_encoding(response)

    def add(self, part: bytes) -> bool:
        """Take in the next part; return whether there may be more."""
        self._content += part
        return len(self._content) <= self._max_bytes

    def whole(self) -> httpx.Response:
        """Return the response with its whole body.

        Raises:
            UnexpectedAnswer: If it is too large.
        """
        if len(self._content) > self._max_bytes:
            raise UnexpectedAnswer(
                f"{self._response.request.url} answers with more than {self._max_bytes} bytes, "
                "which no gyoza server does; check GYOZA_SERVER_URL."
            )
        if self._response.is_closed:
            # It and its stream know each other, and would keep the request's body until garbage is
            # collected.
            self._response.stream = httpx.ByteStream(b"")
        known = self._response.extensions
        return httpx.Response(
            self._response.status_code,
            headers=self._response.headers,
            content=bytes(self._content),
            request=self._response.request,
            extensions={"reason_phrase": known.get("reason_phrase", b"")},
        )


def check_encoding(response: httpx.Response) -> None:
    """Refuse what is compressed: nobody has asked for it, and it may be endless.

    Raises:
        UnexpectedAnswer: If it is.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnexpectedAnswer(
            f"{response.request.url} answers compressed ({encoding[:20]}), which was not asked for;"
            " check GYOZA_SERVER_URL and any proxy on the way."
        )


def read_answer(call: Call[T], response: httpx.Response) -> T:
    """Return what the call's answer says.

    Raises:
        ApiError: For an error status.
        UnexpectedAnswer: If a success is not what a gyoza server would send.
    """
    judge(response)
    try:
        return call.parse(response)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise unexpected(response) from error


def unexpected(response: httpx.Response) -> UnexpectedAnswer:
    """Return the error for a success that is no gyoza server's."""
    return UnexpectedAnswer(
        f"{response.request.url} did not answer as a gyoza server does{_speaker(response)}; "
        "check GYOZA_SERVER_URL, and whether a proxy on the way shows a page of its own."
    )


_AWAY = ": the server behind it may be away."
_OF_PROXIES = {
    413: (
        "; raise its limit for bodies (a gyoza server takes 16 MiB): see the page 'Behind a reverse"
        " proxy'."
    ),
    502: _AWAY,
    503: _AWAY,
    504: _AWAY,
}
"""Statuses that a proxy answers with when the address is right, and what is to be done."""


def judge(response: httpx.Response) -> None:
    """Raise an error unless the answer is a success.

    Raises:
        ApiError: With the server's sentence.
        ForeignAnswer: If it holds none: then it is not the server's.
    """
    if response.is_success:
        return
    detail: Any = None
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        detail = json.loads(response.content)["detail"]
    if isinstance(detail, str):
        raise ApiError(response, _plain(detail))
    raise ForeignAnswer(response, _foreign(response))


def _foreign(response: httpx.Response) -> str:
    """Return the sentence for an error that a gyoza server would have told in its own words."""
    url, speaker = response.request.url, _speaker(response)
    status = _plain(f"{response.status_code} {response.reason_phrase}".rstrip())
    if advice := _OF_PROXIES.get(response.status_code):
        return f"A proxy in front of the server answered {status} for {url}{speaker}{advice}"
    return (
        f"{url} answered {status}, not in the words of a gyoza server{speaker}; "
        f"check GYOZA_SERVER_URL{_what_to_check(response)}."
    )


def _speaker(response: httpx.Response) -> str:
    """Say who has answered, as far as the headers tell."""
    server, via = (_plain(response.headers.get(name, ""))[:100] for name in ("Server", "Via"))
    told = [f"it calls itself {server}"] * bool(server) + [f"it came via {via}"] * bool(via)
    return f" ({' and '.join(told)})" if told else ""


def _what_to_check(response: httpx.Response) -> str:
    status = response.status_code
    if response.has_redirect_location:
        place = _plain(response.headers["Location"].partition("?")[0].rpartition("@")[2])[:200]
        return f", and whether a proxy on the way wants a login of its own: it points to {place}"
    if status in (401, 403, 407):
        return ", and whether a proxy on the way wants a login of its own"
    if status >= 500 or status in (408, 429):
        return ", and whether a proxy on the way reaches the server"
    return ", its path too, and where a proxy on the way leads to"


def _plain(sentence: str) -> str:
    """Return the server's words as one line without control characters, of bounded length."""
    line = "".join(c if c.isprintable() else " " for c in sentence[: MAX_SENTENCE + 1])
    return line if len(line) <= MAX_SENTENCE else line[:MAX_SENTENCE] + "…"
