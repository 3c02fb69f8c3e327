"""An op fills the disk that its neighbours and the server write to."""

from pathlib import Path

import pytest
import trio

from gyoza.server.settings import ServerSettings
from tests.e2e.conftest import OpenSystem, busybox_image, open_system
from tests.support.small_disk import small_disk

__all__ = ["busybox_image", "open_system"]

BYTES = "dd if=/dev/zero of=/gyoza/x bs=1M; echo full; sleep 600"
INODES = "i=0; while mkdir /gyoza/$i; do i=$((i + 1)); done; echo full; sleep 600"
NEIGHBOUR = """
until [ -e /gyoza/go ]; do sleep 0.1; done; echo '{"a": 1}' > $GYOZA_OUTPUT_PATH
"""


@pytest.mark.docker
@pytest.mark.row("disk-full")
@pytest.mark.parametrize(
    ("fills", "options", "told"),
    [(BYTES, "size=96m", " MB, more"), (INODES, "size=96m,nr_inodes=3000", " files, more")],
    ids=["bytes", "inodes"],
)
async def test_an_op_that_fills_the_disk_is_stopped_and_nobody_else(
    open_system: OpenSystem,
    busybox_image: str,
    tmp_path: Path,
    fills: str,
    options: str,
    told: str,
) -> None:
    with small_disk(tmp_path, options) as disk, trio.fail_after(300):
        server = ServerSettings(
            port=0, database_url=f"sqlite:///{disk}/server.sqlite3", api_key="a-key-for-tests"
        )
        work = tmp_path / "work"
        work.symlink_to(disk / "work")
        (disk / "work").mkdir()
        settings = {"work_dir": disk / "work", "pull_policy": "never", "min_free_mb": 10}
        async with open_system(server, **settings) as system:
            neighbour = await system.run(busybox_image, command=["sh", "-c", NEIGHBOUR])
            await system.until(neighbour, lambda run: run["state"] == "RUNNING")
            filler = await system.run(busybox_image, command=["sh", "-c", fills])
            filled = await system.end_of(filler)
            assert (filled["state"], filled["execution_summary"]["reason"]) == (
                "FAILED",
                "DISK_FULL",
            )
            assert told in filled["execution_summary"]["error_message"]
            worker = system.worker.settings
            [mounted] = worker.work_dir.glob(f"{neighbour}.*/gyoza")
            (mounted / "go").touch()
            assert (await system.end_of(neighbour))["outputs"] == {"a": 1}
            cancelled = await system.run(busybox_image, command=["sleep", "600"])
            await system.client.cancel_run(cancelled)
            assert (await system.end_of(cancelled))["state"] == "CANCELLED"
