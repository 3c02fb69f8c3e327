"""Databases as earlier versions left them."""

import sqlite3
from contextlib import closing
from pathlib import Path

SINCE_4 = {
    "attempts": ("logged_at", "log_complete"),
    "run_data": ("inputs",),
    "runs": ("spec_bytes", "inputs_bytes"),
}
"""Columns that came with version 4."""

SINCE_5 = {
    "runs": ("created_by", "request_digest", "progress_events", "kind_id"),
    "events": ("created_by",),
    "definitions": ("created_by",),
    "api_keys": ("tags", "max_runs", "expires_at", "last_used_at"),
    "workers": ("offer",),
}
"""Columns that came with version 5."""

BEFORE_5 = (
    "DROP INDEX runs_by_kind",
    "DROP INDEX runs_queued",
    "UPDATE runs SET idempotency_key = substr(idempotency_key, 12)",
    "ALTER TABLE feed ADD COLUMN attributes JSON NOT NULL DEFAULT '{}'",
    "DROP TABLE kinds",
    "DROP TABLE deliveries",
)


def make_older(file: Path, version: int, *more: str) -> None:
    """Make of a new database what a version would have left.

    Args:
        file: The database, which no server has open.
        version: Of its format, 1 to 4.
        more: Statements that are executed as well.
    """
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in BEFORE_5:
            connection.execute(statement)
        _drop(connection, SINCE_5)
        if version == 4:
            connection.execute("CREATE INDEX runs_queued ON runs (constraints, tags)")
        else:
            _make_older_than_4(connection, version)
        for statement in more:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={version}")


def _make_older_than_4(connection: sqlite3.Connection, version: int) -> None:
    for index in ("runs_ended", "feed_by_run"):
        connection.execute(f"DROP INDEX {index}")
    if version < 3:
        connection.execute("CREATE INDEX runs_waiting ON runs (state, priority DESC, seq)")
    if version == 1:
        connection.execute("ALTER TABLE runs DROP COLUMN event_bytes")
    connection.execute("UPDATE run_data SET spec = json_set(spec, '$.inputs', json(inputs))")
    _drop(connection, SINCE_4)


def _drop(connection: sqlite3.Connection, columns: dict[str, tuple[str, ...]]) -> None:
    for table, names in columns.items():
        for name in names:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
