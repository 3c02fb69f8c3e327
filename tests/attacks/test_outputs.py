"""An op that leaves something else than outputs, for the worker to trip over."""

import base64
import os
import pickle
import stat
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from gyoza.worker.errors import OutputInvalid
from gyoza.worker.op_io.op_dir import make_op_dir, mounted_dir, remove_op_dir
from gyoza.worker.op_io.outputs import read_outputs
from gyoza.worker.op_io.plain_data import Limits
from tests.images import busybox_image
from tests.support.deployment import COMMAND, Deployment, open_deployment

__all__ = ["busybox_image"]

# Root without its powers: files of others are as closed to it as to any user.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", *COMMAND)


def bomb() -> list[Any]:
    value: list[Any] = [0]
    for _ in range(40):
        value = [value] * 50
    return value


BOMB = pickle.dumps({"x": bomb()})
PROGRAM = b"\x80\x02cos\nsystem\n(S'touch /owned'\ntR."


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


LEAVES: dict[str, tuple[str, str]] = {
    "a_link_to_the_machines_passwords": (
        "ln -s /etc/shadow $OUT",
        "a link or a special file",
    ),
    "a_link_to_its_own_inputs": ("ln -s input.json $OUT", "a link or a special file"),
    "a_link_that_leads_nowhere": ("ln -s nowhere $OUT", "a link or a special file"),
    "a_second_name_of_another_file": ("ln /gyoza/input.json $OUT", "a link or a special file"),
    "a_pipe_that_nobody_writes_to": ("mkfifo $OUT", "a link or a special file"),
    "a_folder": ("mkdir $OUT", "a link or a special file"),
    "a_file_of_a_terabyte_with_nothing_in_it": (
        "dd if=/dev/zero of=$OUT bs=1 count=1 seek=1099511627775 2>/dev/null",
        "has 1099511627776 bytes",
    ),
    "an_aliasing_bomb": (f"echo {encoded(BOMB)} | base64 -d > $OUT", "has more than"),
    "a_program_for_whoever_loads_it": (
        f"echo {encoded(PROGRAM)} | base64 -d > $OUT",
        "an object of 'os system'",
    ),
    "a_hundred_thousand_brackets": (
        "head -c 100000 /dev/zero | tr '\\0' '[' > $OUT",
        "is not plain data",
    ),
    "a_list_of_millions_of_lists": (
        "(printf '['; yes '[],[],[],' | head -n 500000 | tr -d '\\n'; printf '[]]') > $OUT",
        "has more than",
    ),
    "no_more_than_a_closed_file_of_another_user": (
        "echo '{}' > $OUT; chown 1234 $OUT; chmod 0 $OUT",
        "cannot be read",
    ),
    "its_outputs_in_a_folder_closed_to_all_but_another_user": (
        "echo '{}' > $OUT; chown 1234 /gyoza; chmod 1700 /gyoza",
        "cannot be read",
    ),
}

STILL_WELL: dict[str, str] = {
    "thousands_of_files_besides": "seq 20000 | sed 's#^#/gyoza/f#' | xargs touch",
    "closed_folders_of_another_user": (
        "mkdir -p /gyoza/a/b/c; touch /gyoza/a/b/c/d; chmod -R 0700 /gyoza/a; "
        "chown -R 1234 /gyoza/a"
    ),
    "the_shared_folder_to_another_user_and_closed": (
        "mkdir -p /gyoza/a/b; touch /gyoza/a/b/c; chown -R 1234 /gyoza/a; "
        "chown 1234 /gyoza; chmod 0755 /gyoza"
    ),
    "links_in_place_of_its_inputs": "rm /gyoza/input.*; ln -s /etc/passwd /gyoza/input.json",
}


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncGenerator[Deployment]:
    settings = ServerSettings(
        port=0, database_url=f"sqlite:///{tmp_path}/server.sqlite3", api_key="a-key"
    )
    async with trio.open_nursery() as services:
        url: str = await services.start(serve, settings)
        async with open_deployment(url, "a-key", tmp_path) as deployment:
            yield deployment
        services.cancel_scope.cancel()


async def run_all(
    deployment: Deployment, scripts: dict[str, tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Run scripts, each in an image, on a worker without powers; it must leave nothing behind."""
    await deployment.start(POWERLESS)
    ids: dict[str, str] = {}
    for name, (image, script) in scripts.items():
        command = ["sh", "-c", f'export OUT="$GYOZA_OUTPUT_PATH"; {script}']
        ids[name] = await deployment.submit(image, command)
    ended = {name: await deployment.end_of(run_id) for name, run_id in ids.items()}
    await deployment.drain()
    return ended


@pytest.mark.docker
async def test_a_container_that_leaves_something_else_than_outputs(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(200):
        scripts = {name: (busybox_image, script) for name, (script, _) in LEAVES.items()}
        ended = await run_all(deployment, scripts)
    for name, (_, sentence) in LEAVES.items():
        summary = ended[name]["execution_summary"]
        assert summary["reason"] == "OUTPUT_INVALID", (name, summary)
        assert sentence in summary["error_message"], name
    assert not os.path.lexists("/owned")  # noqa: ASYNC240


@pytest.mark.docker
async def test_a_container_that_leaves_what_its_worker_may_not_even_remove(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(200):
        scripts = {
            name: (busybox_image, f"echo '{{\"ok\": 1}}' > $OUT && {script}")
            for name, script in STILL_WELL.items()
        }
        ended = await run_all(deployment, scripts)
    assert {name: run["outputs"] for name, run in ended.items()} == {
        name: {"ok": 1} for name in STILL_WELL
    }


def device(folder: Path) -> None:
    os.mknod(folder / "output", stat.S_IFCHR | 0o666, os.makedev(1, 5))


def link_in_place_of_the_folder(folder: Path) -> None:
    folder.rmdir()
    (folder.parent / "beyond").mkdir()
    (folder.parent / "beyond" / "output").write_text('{"stolen": 1}')
    folder.symlink_to(folder.parent / "beyond")


@pytest.mark.parametrize("leave", [device, link_in_place_of_the_folder])
def test_an_op_that_got_further_than_it_should_and_leaves(
    tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    folder = make_op_dir(tmp_path)
    leave(folder)
    with pytest.raises(OutputInvalid, match=r"special file|cannot be read"):
        read_outputs(tmp_path)
    remove_op_dir(tmp_path)
    assert not tmp_path.exists()


def test_a_file_larger_than_may_be_read(tmp_path: Path) -> None:
    make_op_dir(tmp_path)
    (mounted_dir(tmp_path) / "output").write_bytes(pickle.dumps({"x": "y" * 1000}))
    with pytest.raises(OutputInvalid, match=r"has 10.. bytes and may have 100"):
        read_outputs(tmp_path, limits=Limits(size=100))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b'{"a": "' + b',\\"' * 2_700_000, "neither a pickle nor JSON"),
        (b'{"a": [' + b"[]," * 2_000_000 + b"[]]}", "more than 1000000 values"),
        (b"[" * 8_000_000, "more than 1000000 values"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper than 64"),
        (b'{"a": ' + b"9" * 8_000_000 + b"}", "thousands of digits"),
    ],
)
def test_a_small_file_that_would_become_a_large_value(
    tmp_path: Path, data: bytes, sentence: str
) -> None:
    make_op_dir(tmp_path)
    (mounted_dir(tmp_path) / "output").write_bytes(data)
    with pytest.raises(OutputInvalid, match=sentence):
        read_outputs(tmp_path)


def test_a_text_of_millions_of_commas_is_one_value(tmp_path: Path) -> None:
    make_op_dir(tmp_path)
    text = 'a,[{:\\"' * 600_000
    (mounted_dir(tmp_path) / "output").write_text(f'{{"text": "{text}"}}')
    assert len(read_outputs(tmp_path)["text"]) == 6 * 600_000
