"""Reads the bodies of answers: what is not of the right form is no answer of a gyoza server.

What these raise, ValueError or TypeError, becomes `UnexpectedAnswer`.
"""

import math
from typing import Any, cast

import httpx

from gyoza.models.limits import NEXT_PAGE

Json = dict[str, Any]


def an_object(response: httpx.Response) -> Json:
    """Return a JSON object."""
    answer = response.json()
    if not isinstance(answer, dict):
        raise TypeError(f"not an object: {answer!r}")
    return cast("Json", answer)


def a_list(response: httpx.Response) -> list[Json]:
    """Return a JSON list."""
    answer = response.json()
    if not isinstance(answer, list):
        raise TypeError(f"not a list: {answer!r}")
    return cast("list[Json]", answer)


class Page(list[Json]):
    """A page of a list.

    Attributes:
        following: Where the next one starts; None after the last.
    """

    following: str | None = None


def a_page(response: httpx.Response) -> Page:
    """Return a page of a JSON list."""
    page = Page(a_list(response))
    page.following = response.headers.get(NEXT_PAGE)
    return page


MAX_PAGES = 1000
"""Pages of one list that are read: a server might never come to an end."""


class WholeList:
    """Puts the pages of a list together.

    Attributes:
        items: What they hold so far.
    """

    def __init__(self) -> None:
        self.items: list[Json] = []
        self._pages = 0

    def add(self, page: Page) -> str | None:
        """Take in a page; return where the next one starts."""
        self.items += page
        self._pages += 1
        return page.following if page and self._pages < MAX_PAGES else None


def nothing(response: httpx.Response) -> None:
    """Return nothing, which is what comes after something was deleted."""
    if response.status_code != 204:
        raise ValueError("an answer where none is due")


def taken(response: httpx.Response) -> Json:
    """Return a JSON object; a small server may take a report without a word.

    A page, be it an empty one, is something else's.
    """
    is_page = "html" in response.headers.get("Content-Type", "")
    return an_object(response) if response.content or is_page else {}


def news(response: httpx.Response) -> Json:
    """Return what a heartbeat or a look at changes tells.

    A worker stops runs by it, so that each of its fields must be what it should.
    """
    answer = taken(response)
    states = cast("Json", answer.get("states") or {})
    if not all(isinstance(text, str) for pair in states.items() for text in pair):
        raise TypeError("states are texts")
    if not isinstance(answer.get("cursor", ""), str | None):
        raise TypeError("a cursor is a text")
    lease_s: Any = answer.get("lease_s")
    if lease_s is not None and (type(lease_s) not in (int, float) or not 0 < lease_s < math.inf):
        raise ValueError("a lease is a number of seconds")
    return answer


def claimed_runs(response: httpx.Response) -> list[Json]:
    """Return the runs that a claim brought, unread."""
    runs = an_object(response).get("runs", [])
    if not isinstance(runs, list):
        raise ValueError("runs is not a list")
    return cast("list[Json]", runs)
