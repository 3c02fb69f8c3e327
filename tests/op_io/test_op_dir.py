"""The folder shared with the container: made private, removed whatever is in it."""

import os
import socket
import stat
import tempfile
import tracemalloc
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gyoza.worker.errors import WorkerError
from gyoza.worker.op_io import make_op_dir, mounted_dir, remove_op_dir
from gyoza.worker.op_io.op_dir import folders_in

NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Generator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def as_nobody() -> Generator[Path]:
    """Go on as a user without privileges, in a folder of theirs."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def make_run_dir(work_dir: Path) -> Path:
    """Return a run directory with the folder that its container sees."""
    run_dir = work_dir / "r.1"
    run_dir.mkdir(mode=0o700, parents=True)
    make_op_dir(run_dir)
    return run_dir


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_folder_to_mount_is_open_to_all(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        op_dir = make_op_dir(tmp_path)
    assert op_dir == mounted_dir(tmp_path)
    assert mode(op_dir) == 0o777


def test_what_an_earlier_try_left_is_gone(tmp_path: Path) -> None:
    (make_op_dir(tmp_path) / "output").write_text("old")
    assert [*make_op_dir(tmp_path).iterdir()] == []


def test_removing_nothing_is_no_error(tmp_path: Path) -> None:
    remove_op_dir(tmp_path / "none")


def test_a_folder_that_was_never_used_is_removed(tmp_path: Path) -> None:
    remove_op_dir(make_run_dir(tmp_path))
    assert [*tmp_path.iterdir()] == []


def test_links_are_removed_and_what_they_point_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    op_dir = make_run_dir(tmp_path / "work")
    inside = mounted_dir(op_dir)
    (inside / "folder").symlink_to(outside)
    (inside / "sub").mkdir()
    (inside / "sub" / "file").symlink_to(outside / "precious")
    (inside / "hard").hardlink_to(outside / "precious")
    os.mkfifo(inside / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(inside / "s"))
    remove_op_dir(op_dir)
    assert not op_dir.exists()
    assert (outside / "precious").read_text() == "x"


def test_an_op_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (tmp_path / "r.1").symlink_to(outside)
    with pytest.raises(WorkerError, match=r"r\.1 cannot be removed"):
        remove_op_dir(tmp_path / "r.1")
    assert (outside / "precious").exists()


def test_nesting_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    op_dir = make_run_dir(tmp_path)
    folder = os.open(mounted_dir(op_dir), os.O_RDONLY)
    for _ in range(3_000):
        os.mkdir("d", dir_fd=folder)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    remove_op_dir(op_dir)
    assert not op_dir.exists()


def test_write_protected_and_unreadable_folders_are_removed() -> None:
    with as_nobody() as work_dir:
        op_dir = make_run_dir(work_dir)
        for name, protection in [("closed", 0o000), ("read-only", 0o555)]:
            inner = mounted_dir(op_dir) / name / "inner"
            inner.mkdir(parents=True)
            (inner / "file").write_text("x")
            inner.chmod(protection)
            inner.parent.chmod(protection)
        remove_op_dir(op_dir)
        assert not op_dir.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_another_user_s_folder_is_named_and_the_rest_removed() -> None:
    with as_nobody() as work_dir:
        op_dir = make_run_dir(work_dir)
        mine = mounted_dir(op_dir) / "mine"
        mine.write_text("x")
        os.seteuid(0)
        theirs = mounted_dir(op_dir) / "theirs"
        theirs.mkdir(mode=0o755)
        (mounted_dir(op_dir) / "empty").mkdir(mode=0o755)
        (theirs / "file").write_text("x")
        os.seteuid(NOBODY)
        with pytest.raises(WorkerError, match=rf"{op_dir} cannot be removed .*by hand"):
            remove_op_dir(op_dir)
        assert [*mounted_dir(op_dir).iterdir()] == [theirs]
        os.seteuid(0)
        remove_op_dir(op_dir)
        assert not op_dir.exists()


def test_a_folder_that_its_own_op_has_closed_is_removed() -> None:
    with as_nobody() as work_dir:
        op_dir = make_run_dir(work_dir)
        mounted_dir(op_dir).joinpath("file").touch()
        mounted_dir(op_dir).chmod(0o000)
        remove_op_dir(mounted_dir(op_dir))
        assert [*op_dir.iterdir()] == []


def test_many_names_take_no_memory(tmp_path: Path) -> None:
    inside = mounted_dir(make_run_dir(tmp_path))
    for number in range(2_000):
        (inside / f"{number:0200}").mkdir()
        (inside / f"{number:0200}" / "file").touch()
    tracemalloc.start()
    try:
        remove_op_dir(inside)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not inside.exists()
    assert peak < 100_000  # the names alone are 400,000 bytes


def test_folders_are_named_some_at_a_time_and_links_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in "abc":
        (tmp_path / name).mkdir()
    assert sorted(folders_in(tmp_path, 5)) == ["a", "b", "c"]
    assert len(folders_in(tmp_path, 2)) == 2
