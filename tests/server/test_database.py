"""The database file: what a commit means, and files of older versions."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gyoza.server.store.database import Database
from gyoza.server.wakeups import Wakeups

from .api import serving, settings_in
from .older import make_older


@pytest.mark.parametrize(("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2)])
async def test_a_write_is_on_disk_before_it_is_answered(
    tmp_path: Path, pragma: str, value: object
) -> None:
    database = await Database.open(tmp_path / "x.sqlite3", Wakeups(), lambda: 0.0)
    try:
        found: object = await database.write(
            lambda tx: tx.conn.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()
        )
    finally:
        await database.aclose()
    assert found == value  # 2 is FULL: every commit waits until the log is on the disk


async def test_a_database_from_before_grace_periods_and_disk_reports_goes_on_working(
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path)
    async with serving(settings) as api:
        await api.post("/definitions", {"id": "op", "image": "i", "grace_s": 3}, 201)
        run = await api.running(grace_s=4)
        await api.beat(running=(run,), disk="low")
    with closing(sqlite3.connect(tmp_path / "server.sqlite3")) as connection, connection:
        for table, column, name in (
            ("run_data", "spec", "grace_s"),
            ("definitions", "body", "grace_s"),
            ("workers", "heartbeat", "disk"),
        ):
            connection.execute(f"UPDATE {table} SET {column} = json_remove({column}, '$.{name}')")
    async with serving(settings) as api:
        assert (await api.get("/definitions/op"))["grace_s"] is None
        assert (await api.run(run))["grace_s"] is None
        assert (await api.get("/workers/w1"))["disk"] is None
        await api.event(run, "COMPLETED", worker_id="w1", attempt=1)
        made = await api.post("/definitions/op/runs", {}, 201)
        assert [r["id"] for r in await api.claim()] == [made["id"]]


def indexes_of(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'index'").fetchall()
    return {row[0] for row in found}


@pytest.mark.parametrize("version", [1, 2, 3, 4])
async def test_a_database_of_an_older_format_becomes_like_a_new_one(
    tmp_path: Path, version: int
) -> None:
    settings = settings_in(tmp_path)
    file = tmp_path / "server.sqlite3"
    async with serving(settings) as api:
        running, waiting = await api.running(), await api.submit(priority=3)
        before = await api.run(waiting)
    new = indexes_of(file)
    make_older(file, version)
    async with serving(settings) as api:
        assert await api.run(waiting) == before | {"created_by": None}
        await api.beat(running=(running,))
        [claimed] = await api.claim()
        assert (claimed["id"], claimed["inputs"]) == (waiting, before["inputs"])
        await api.event(running, "COMPLETED", worker_id="w1", attempt=1)
    assert indexes_of(file) == new
