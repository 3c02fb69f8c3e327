"""A database with very many runs: real ones, made by the server's own code, and copies of them."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import trio

from gyoza.models import EventDelivery, EventType, OpRun
from gyoza.server.json_text import EMPTY
from gyoza.server.store import claims, op_events, reports, submission, workers
from gyoza.server.store.database import Database, Tx
from gyoza.server.store.schema import IS_QUEUED, attempts, deliveries, events, feed, run_data
from gyoza.server.store.schema import runs as runs_table
from gyoza.server.store.texts import Stored
from gyoza.server.wakeups import Wakeups

CACHE_KB = 1_000_000
CLASSES = 20
"""How many kinds of needs those runs have that are for other workers."""

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :copies)"
# Ids that come in no order, as real ones do.
COPY_ID = "printf('%08x', (n.i * 2654435761) % 4294967296) || substr(:template, 9)"


async def fill(path: Path, *, pending: int, finished: int) -> None:
    """Add runs to a database, made if it is not there, which no server has open."""
    database = await Database.open(path, Wakeups(), time.time)
    try:
        templates = [
            (await database.write(make), count)
            for make, count in ((_finished_run, finished), (_run, pending))
            if count
        ]
    finally:
        await database.aclose()
    await trio.to_thread.run_sync(_copy, path, templates)


async def give_half_to_others(path: Path) -> None:
    """Give every second run that waits needs that the worker of a benchmark cannot meet.

    They are put in front of the others: whoever claims has to get past all of them.
    """
    await trio.to_thread.run_sync(_give_half_to_others, path)


def _run(tx: Tx) -> str:
    topic = EventDelivery("stock", {"from": "a benchmark"})
    asked = OpRun(id="", image="busybox", inputs={"n": 1, "name": "x"}, event_delivery=topic)
    return submission.create_run(tx, asked, Stored(EMPTY, 2)).id


def _finished_run(tx: Tx) -> str:
    told: dict[str, Any] = {"worker_id": "stock", "resources": {}, "tags": [], "running_ops": []}
    workers.beat(tx, told | {"draining": False}, 60, claiming=False)
    run_id = _run(tx)
    claims.claim(tx, claims.Wish("stock", 1, []), 60)
    for kind in (EventType.STARTED, EventType.COMPLETED):
        reports.add_event(tx, run_id, op_events.Report(kind, "said", EMPTY, "stock", 1))
    return run_id


def _copy(path: Path, templates: list[tuple[str, int]]) -> None:
    with closing(_open(path)) as connection, connection:
        for template, count in templates:
            for table in (runs_table, run_data, deliveries, attempts, events, feed):
                key = "id" if table is runs_table else "run_id"
                columns = [f'"{c.name}"' for c in table.columns if c.name not in ("seq", "cursor")]
                values = [COPY_ID if column == f'"{key}"' else column for column in columns]
                connection.execute(
                    f"{NUMBERS} INSERT INTO {table.name} ({', '.join(columns)}) "
                    f"SELECT {', '.join(values)} FROM n, {table.name} WHERE {key} = :template",
                    {"copies": count - 1, "template": template},
                )


def _give_half_to_others(path: Path) -> None:
    with closing(_open(path)) as connection, connection:
        connection.execute(
            "UPDATE runs SET priority = 9, tags = json_array('rack-' || (seq / 2 % :classes)) "
            "WHERE state = 'PENDING' AND seq % 2",
            {"classes": CLASSES},
        )
        connection.execute(
            "INSERT OR IGNORE INTO kinds (constraints, tags, fits) "
            "SELECT DISTINCT constraints, tags, 1 FROM runs WHERE state = 'PENDING'"
        )
        connection.execute(
            "UPDATE runs SET kind_id = (SELECT id FROM kinds WHERE constraints = runs.constraints "
            "AND tags = runs.tags) WHERE state = 'PENDING'"
        )
        connection.execute(
            "UPDATE kinds SET (head_priority, head_seq) = (SELECT priority, seq FROM runs WHERE "
            f"{IS_QUEUED} AND kind_id = kinds.id ORDER BY priority DESC, seq LIMIT 1)"
        )


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA cache_size=-{CACHE_KB}").close()
    connection.execute("PRAGMA synchronous=OFF").close()
    return connection
