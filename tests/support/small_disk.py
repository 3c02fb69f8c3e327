"""A small disk in memory, for tests that fill one."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, options: str) -> Generator[Path]:
    """Mount one in a folder for as long as the block lasts; without root's powers the test skips.

    Args:
        folder: Where to make its mount point.
        options: Of the mount, such as `size=64m,nr_inodes=1000`.
    """
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
