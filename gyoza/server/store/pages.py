"""As much of a list as one answer may hold."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def page_of(
    items: Iterable[T], size_of: Callable[[T], int], most: int, limit: int
) -> tuple[list[T], bool]:
    """Return the items of one page, and whether there are more.

    Args:
        items: What there is; one more than are returned is read.
        size_of: As for `within`.
        most: As for `within`.
        limit: How many there may be.
    """
    rest = iter(items)
    ahead: list[T] = []

    def watched() -> Iterator[T]:
        for item in rest:
            ahead.append(item)
            yield item

    page = list(islice(within(watched(), size_of, most), limit))
    return page, len(ahead) > len(page) or next(rest, None) is not None


def within(items: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[T]:
    """Yield items from the first on, and that one whatever its size.

    Args:
        items: What there is.
        size_of: Returns the bytes of an item.
        most: Bytes of all that are yielded, if they are more than one.
    """
    size = 0
    for item in items:
        of_this = size_of(item)
        if size and size + of_this > most:
            return
        size += of_this
        yield item
