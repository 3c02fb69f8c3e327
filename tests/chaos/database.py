"""The server's file, which another program can lock, on a disk of its own, which can be full."""

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import trio

SIZE = "512m"
"""More than any chaos run needs; it takes as much memory as is used of it."""

TRY_S = 1.0
CATCH_UP_S = 5.0
"""So long after its trouble a server that starts may still find it."""


class Database:
    """The file and its disk; see `open_database`.

    Attributes:
        busy: Held by the one fault at a time that may touch it.
        file: The database.
        disk: Where it is.
        can_be_full: Whether the disk is one of its own.
    """

    def __init__(self, disk: Path, *, can_be_full: bool) -> None:
        self.busy = trio.Lock()
        self.file = disk / "server.sqlite3"
        self.disk = disk
        self.can_be_full = can_be_full
        self._troubled = False
        self._whole_since = 0.0

    async def lock(self, lasts_s: float) -> None:
        """Hold SQLite's lock for writing, as another program may: nobody else can write."""
        with closing(self._connect()) as connection:
            await self._insist(connection, "BEGIN IMMEDIATE")
            self._troubled = True
            await trio.sleep(lasts_s)
            connection.execute("ROLLBACK").close()
        self._end_trouble()

    async def fill(self, lasts_s: float) -> None:
        """Let there be no room on the disk, not even in files that SQLite would use again."""
        self._troubled = True
        try:
            with closing(self._connect()) as connection:
                await self._insist(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
                await self._insist(connection, "BEGIN IMMEDIATE")  # it is not to grow meanwhile
                await self._resize(self._used())
                connection.execute("ROLLBACK").close()
            await trio.sleep(lasts_s)
        finally:
            with trio.CancelScope(shield=True):
                await self._resize(SIZE)
        self._end_trouble()

    def has_trouble(self) -> bool:
        """Return whether it cannot be relied on, or could not a moment ago."""
        return self._troubled or time.time() - self._whole_since < CATCH_UP_S

    def _end_trouble(self) -> None:
        self._troubled, self._whole_since = False, time.time()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.file, timeout=TRY_S, isolation_level=None, check_same_thread=False
        )

    async def _insist(self, connection: sqlite3.Connection, statement: str) -> None:
        """Execute a statement, again while the server is in its way."""
        while True:
            try:
                cursor = await trio.to_thread.run_sync(connection.execute, statement)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
            else:
                cursor.close()
                return

    def _used(self) -> str:
        now = os.statvfs(self.disk)
        return str((now.f_blocks - now.f_bfree) * now.f_frsize)

    async def _resize(self, size: str) -> None:
        await trio.run_process(["mount", "-o", f"remount,size={size}", str(self.disk)])


@asynccontextmanager
async def open_database(folder: Path) -> AsyncGenerator[Database]:
    """Have a place for the database: a small disk in memory, where one can be mounted.

    At the end the files are in the folder all the same.
    """
    disk = folder / "database"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(disk)]
    mounted = await trio.run_process(mount, check=False, stderr=subprocess.DEVNULL)
    try:
        yield Database(disk, can_be_full=mounted.returncode == 0)
    finally:
        if mounted.returncode == 0:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_unmount, disk)


def _unmount(disk: Path) -> None:
    kept = disk.with_name("kept")
    shutil.copytree(disk, kept)
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    disk.rmdir()
    kept.rename(disk)
