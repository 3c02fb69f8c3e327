"""Definitions: deploying, finding and making runs of them."""

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, tuple_

from gyoza.models import InputValidationError, OpDefinition, OpRun
from gyoza.models.limits import PAGE_BYTES
from gyoza.server.errors import BadRequest, NotFound
from gyoza.server.json_text import write_text
from gyoza.server.store.database import Tx
from gyoza.server.store.pages import page_of
from gyoza.server.store.runs import Json, at, author_of
from gyoza.server.store.schema import definitions


def deploy(tx: Tx, definition: OpDefinition) -> tuple[OpDefinition, bool]:
    """Store a definition, which becomes the latest; return it and whether its version is new."""
    same = (definitions.c.id == definition.id, definitions.c.version == definition.version)
    before = tx.conn.execute(select(definitions).where(*same)).one_or_none()
    tx.conn.execute(delete(definitions).where(*same))
    tx.conn.execute(
        insert(definitions).values(
            id=definition.id,
            version=definition.version,
            body=definition.to_dict(),
            created_at=tx.now if before is None else before.created_at,
            updated_at=tx.now,
            created_by=tx.author,
        )
    )
    return find_definition(tx.conn, definition.id, definition.version), before is None


def find_definition(conn: Connection, name: str, version: str | None = None) -> OpDefinition:
    """Return a version of a definition, the one deployed last if none is named.

    Raises:
        NotFound: If there is no such definition or version.
    """
    query = select(definitions).where(definitions.c.id == name)
    if version is not None:
        query = query.where(definitions.c.version == version)
    row = conn.execute(query.order_by(definitions.c.seq.desc()).limit(1)).one_or_none()
    if row is None:
        raise NotFound.of("definition", name if version is None else f"{name}, version {version}")
    return _to_definition(row)


def list_definitions(
    conn: Connection, limit: int, after: tuple[str, str] | None
) -> tuple[list[OpDefinition], bool]:
    """Return definitions by name, each as it was deployed, and whether there are more.

    Args:
        conn: Where to read.
        limit: How many, at most.
        after: Name and version of the one before the first; None for the beginning.

    Raises:
        BadRequest: If there is no such definition any more.
    """
    query = select(definitions).order_by(definitions.c.id, definitions.c.seq)
    if after is not None:
        place = definitions.c.id, definitions.c.seq
        query = query.where(tuple_(*place) > tuple_(after[0], _seq(conn, *after)))
    with conn.execute(query.execution_options(yield_per=1)) as rows:
        page, more = page_of(rows, lambda row: len(write_text(row.body)), PAGE_BYTES, limit)
    return [_to_definition(row) for row in page], more


def delete_definition(tx: Tx, name: str, version: str | None) -> None:
    """Delete a version of a definition, or all of them; runs that were made of it stay.

    Raises:
        NotFound: If there is no such definition or version.
    """
    find_definition(tx.conn, name, version)
    which = definitions.c.id == name
    if version is not None:
        which &= definitions.c.version == version
    tx.conn.execute(delete(definitions).where(which))


def _seq(conn: Connection, name: str, version: str) -> int:
    same = definitions.c.id == name, definitions.c.version == version
    seq = conn.scalar(select(definitions.c.seq).where(*same))
    if seq is None:
        raise BadRequest("No page can start there: that definition was deleted; start anew.")
    return seq


def complete_inputs(definition: OpDefinition, inputs: Json) -> Json:
    """Return the inputs of a run, checked and completed.

    Raises:
        BadRequest: With one sentence for every wrong input.
    """
    try:
        return definition.validate_inputs(inputs)
    except InputValidationError as error:
        raise BadRequest(str(error)) from error


def run_of(definition: OpDefinition, priority: int) -> OpRun:
    """Return the run to create, but for its inputs."""
    return OpRun(
        id="",
        priority=priority,
        image=definition.image,
        command=definition.command,
        env_vars=definition.env_vars,
        secrets=definition.secrets,
        constraints=definition.constraints,
        tags=definition.tags,
        timeout_s=definition.timeout_s,
        grace_s=definition.grace_s,
        retry_policy=definition.retry_policy,
        event_delivery=definition.event_delivery,
        op_definition=definition.id,
    )


def _to_definition(row: Row[Any]) -> OpDefinition:
    definition = OpDefinition.from_dict(row.body)
    definition.created_at = at(row.created_at)
    definition.updated_at = at(row.updated_at)
    definition.created_by = author_of(row)
    return definition
