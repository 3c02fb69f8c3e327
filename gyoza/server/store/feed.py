"""The event feed of a topic: durable, in order of commits, nothing skipped."""

from sqlalchemy import Connection, select

from gyoza.server.store.runs import Json, to_entry
from gyoza.server.store.schema import events, feed


def read_feed(conn: Connection, topic: str, after: int, limit: int) -> list[Json]:
    """Return the events of a topic after a cursor, oldest first."""
    rows = conn.execute(
        select(feed.c.cursor, feed.c.attributes, events)
        .join(events, (events.c.run_id == feed.c.run_id) & (events.c.id == feed.c.event_id))
        .where(feed.c.topic == topic, feed.c.cursor > after)
        .order_by(feed.c.cursor)
        .limit(limit)
    )
    return [
        {
            "cursor": str(row.cursor),
            "topic": topic,
            "run_id": row.run_id,
            "attempt": row.attempt,
            "event": to_entry(row).to_dict(),
            "attributes": row.attributes,
        }
        for row in rows
    ]
