"""Large texts: inputs and outputs in parts, each of which is written in a transaction of its own.

A transaction of megabytes keeps every other write waiting, heartbeats among them. A column that
would hold such a text, always a JSON object, holds its id instead, as a JSON string.
"""

import hashlib
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio
from sqlalchemy import Connection, Table, delete, insert, select, update

from gyoza.server.json_text import JsonText
from gyoza.server.store.database import Database, Tx
from gyoza.server.store.schema import text_parts, texts

PART_BYTES = 256 * 1024
"""Bytes of a part, and of what is stored as a whole."""

DISCARD_S = 60.0
"""Seconds for removing a text that nothing came to need."""


@dataclass(frozen=True)
class Stored:
    """A text that a run can be given.

    Attributes:
        column: What its column is to hold: the text itself, or what stands for it.
        size: Bytes of the text.
    """

    column: JsonText
    size: int


@asynccontextmanager
async def stored(database: Database, text: JsonText) -> AsyncGenerator[Stored]:
    """Store a text, if it is large, for as long as the block; a run that has it then keeps it."""
    small = len(text) <= PART_BYTES
    data = text.encode() if small else await trio.to_thread.run_sync(text.encode)
    if len(data) <= PART_BYTES:
        yield Stored(text, len(data))
        return
    text_id = uuid.uuid4().hex
    try:
        await _store(database, text_id, data)
        yield Stored(JsonText(f'"{text_id}"'), len(data))
    finally:
        with trio.move_on_after(DISCARD_S, shield=True):
            await database.write(partial(_discard, text_id=text_id))


async def _store(database: Database, text_id: str, data: bytes) -> None:
    digest = await trio.to_thread.run_sync(lambda: hashlib.sha256(data).digest())
    row = {"id": text_id, "digest": digest}
    await database.write(partial(_insert, table=texts, row=row))
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        part = {"text_id": text_id, "number": number, "data": data[start : start + PART_BYTES]}
        await database.write(partial(_insert, table=text_parts, row=part))


def _insert(tx: Tx, table: Table, row: Mapping[str, Any]) -> None:
    tx.conn.execute(insert(table), row)


def _discard(tx: Tx, text_id: str) -> None:
    """Delete a text unless a run has it."""
    tx.conn.execute(delete(texts).where(texts.c.id == text_id, texts.c.run_id.is_(None)))


def give_to_run(tx: Tx, text: JsonText, run_id: str) -> None:
    """Let a text be kept for as long as a run, if it is stored apart."""
    if text_id := id_of(text.encode()):
        tx.conn.execute(update(texts).where(texts.c.id == text_id).values(run_id=run_id))


def id_of(column: bytes) -> str | None:
    """Return the id of the text that a column stands for; None if it holds the text itself."""
    return column[1:-1].decode() if column.startswith(b'"') else None


def read_text(conn: Connection, column: bytes) -> bytes:
    """Return the text that a column holds or stands for."""
    text_id = id_of(column)
    if text_id is None:
        return column
    parts = select(text_parts.c.data).where(text_parts.c.text_id == text_id)
    return b"".join(conn.scalars(parts.order_by(text_parts.c.number)))


def digest_of(conn: Connection, column: bytes) -> bytes | None:
    """Return the digest of a text that is stored apart; None for another."""
    return conn.scalar(select(texts.c.digest).where(texts.c.id == id_of(column)))
