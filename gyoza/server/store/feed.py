"""The event feed of a topic: durable, in order of commits, nothing skipped."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, select

from gyoza.models.limits import PAGE_BYTES
from gyoza.server.json_text import join_object
from gyoza.server.store.pages import within
from gyoza.server.store.runs import EVENT, as_json, event_text
from gyoza.server.store.schema import deliveries, events, feed

_ATTRIBUTES = as_json(deliveries.c.attributes).label("attributes")


def read_feed(conn: Connection, topic: str, after: int, limit: int) -> list[tuple[int, bytes]]:
    """Return events of a topic after a cursor, oldest first, each with its own cursor, as JSON."""
    items = _read(conn, topic, after, limit)
    return list(within(items, lambda item: len(item[1]), PAGE_BYTES))


def _read(conn: Connection, topic: str, after: int, limit: int) -> Iterator[tuple[int, bytes]]:
    rows = conn.execute(
        select(feed.c.cursor, feed.c.run_id, _ATTRIBUTES, *EVENT)
        .join(events, (events.c.run_id == feed.c.run_id) & (events.c.id == feed.c.event_id))
        .outerjoin(deliveries, deliveries.c.run_id == feed.c.run_id)
        .where(feed.c.topic == topic, feed.c.cursor > after)
        .order_by(feed.c.cursor)
        .limit(limit)
        .execution_options(yield_per=10)
    )
    with rows:
        row: Row[Any]
        for row in rows:
            known = {"cursor": str(row.cursor), "topic": topic, "run_id": row.run_id}
            texts = {"event": event_text(conn, row), "attributes": row.attributes or b"{}"}
            yield row.cursor, join_object(known | {"attempt": row.attempt}, texts)
