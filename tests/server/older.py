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


def make_older(file: Path, version: int, *more: str) -> None:
    """Make of a new database what a version would have left.

    Args:
        file: The database, which no server has open.
        version: Of its format, 1 to 3.
        more: Statements that are executed as well.
    """
    with closing(sqlite3.connect(file)) as connection, connection:
        for index in ("runs_queued", "runs_ended", "feed_by_run"):
            connection.execute(f"DROP INDEX {index}")
        if version < 3:
            connection.execute("CREATE INDEX runs_waiting ON runs (state, priority DESC, seq)")
        if version == 1:
            connection.execute("ALTER TABLE runs DROP COLUMN event_bytes")
        connection.execute("UPDATE run_data SET spec = json_set(spec, '$.inputs', json(inputs))")
        for table, columns in SINCE_4.items():
            for column in columns:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        for statement in more:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={version}")
