"""As much of a list as one answer may hold."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


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
