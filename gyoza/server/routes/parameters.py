"""Parameters of addresses, queries and headers that several routes share."""

from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from gyoza.models.limits import NEXT_PAGE
from gyoza.server.errors import BadRequest
from gyoza.server.keyring import Key, key_of
from gyoza.server.routes.fields import Id, Wait

RunId = Annotated[Id, Path(description="Id of a run.")]
WorkerId = Annotated[Id, Path(description="Id of a worker.")]
DefinitionName = Annotated[Id, Path(description="Id of a definition.")]
WaitS = Annotated[Wait, Query()]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="The same request again answers with the same run; another one is a 409.",
    ),
]
After = Annotated[str | None, Query(description="The cursor of the answer before.")]

ListLimit = Annotated[int, Query(ge=1, le=1000)]
StartingAfter = Annotated[
    str | None,
    Query(
        max_length=500,
        description=f"The header `{NEXT_PAGE}` of the page before, if it had one.",
    ),
]
LISTED = 1000
"""Entries of a page, unless somebody asks for fewer."""


async def _caller(request: Request) -> Key:
    return key_of(request.scope)


Caller = Annotated[Key, Depends(_caller)]
"""The API key of the request."""


def parse_cursor(cursor: str) -> int:
    """Return the position a cursor stands for.

    Raises:
        BadRequest: If no answer ever held such a cursor.
    """
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise BadRequest(f"{cursor[:80]!r} is not a cursor; use the one of the answer before.")
    return int(cursor)
