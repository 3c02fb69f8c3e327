"""Query parameters and headers that several resources share."""

from typing import Annotated

from fastapi import Header, Query

from gyoza.server.errors import BadRequest

WaitS = Annotated[
    float,
    Query(description="Seconds to wait for news, at most 60.", allow_inf_nan=False),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="The same key again answers with the same run.",
    ),
]
After = Annotated[str | None, Query(description="The cursor of the answer before.")]


def parse_cursor(cursor: str) -> int:
    """Return the position a cursor stands for.

    Raises:
        BadRequest: If no answer ever held such a cursor.
    """
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise BadRequest(f"{cursor[:80]!r} is not a cursor; use the one of the answer before.")
    return int(cursor)
