"""The server keeps room for its database, so that it can write though the disk is full."""

import os
from pathlib import Path

import pytest
import trio

from gyoza.client import AsyncGyozaClient
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from gyoza.server.store.reserve import SIZE
from tests.support.small_disk import small_disk


async def test_a_run_is_cancelled_though_the_disk_is_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path, "size=64m") as disk, trio.fail_after(200):
        database = f"sqlite:///{disk}/server.sqlite3"
        async with trio.open_nursery() as nursery:
            settings = ServerSettings(port=0, database_url=database, api_key="a-key-for-tests")
            url: str = await nursery.start(serve, settings)
            async with AsyncGyozaClient(url, "a-key-for-tests") as client:
                run = await client.create_run("image", {"text": "x" * 100_000})
                assert (disk / "server.sqlite3.reserve").stat().st_blocks * 512 >= SIZE
                fill(disk)
                for _ in range(20):  # whatever room its files have left is used up by then
                    run = await client.create_run("image", {"text": "x" * 100_000})
                await client.cancel_run(run["id"])
                assert (await client.get_run(run["id"]))["state"] == "CANCELLED"
            nursery.cancel_scope.cancel()
    assert caplog.text.count("the room that was kept for it is used") == 1


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                os.write(file.fileno(), bytes(65536))
        except OSError:
            pass
