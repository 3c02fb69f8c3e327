"""Parameters of addresses, queries and headers that several routes share."""

from typing import Annotated

from fastapi import Header, Path, Query

from gyoza.server.errors import BadRequest
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
