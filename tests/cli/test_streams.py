"""Standard streams that are closed, full or read no further, and what is no text."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gyoza.cli.errors import ExitCode
from gyoza.client import GyozaClient

from .conftest import Gyoza
from .live import KEY, live_server

GYOZA = f"{sys.executable} -m gyoza.cli.main"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with live_server(tmp_path_factory.mktemp("server")) as url:
        with GyozaClient(url, KEY) as client:
            for _ in range(30):
                client.create_run("image", {}, tags=["never"])
        yield url


@pytest.fixture(autouse=True)
def access(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", url)
    monkeypatch.setenv("GYOZA_API_KEY", KEY)


def shell(line: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", line.replace("gyoza ", f"{GYOZA} ")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["runs list", "runs list --json", "version"])
def test_a_full_output_is_told_in_a_sentence(command: str) -> None:
    done = shell(f"gyoza {command} >/dev/full")
    assert done.returncode == ExitCode.MACHINE
    assert done.stderr == (
        "gyoza: gyoza cannot write the output (No space left on device); make room.\n"
    )


@pytest.mark.parametrize("command", ["runs list --limit 50", "runs list --json"])
def test_a_closed_output_is_no_reason_to_fail(command: str) -> None:
    done = shell(f"gyoza {command} >&-")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")


def test_a_reader_that_has_enough_ends_a_command_without_a_word() -> None:
    done = shell("gyoza runs list --json | true; exit ${PIPESTATUS[0]}")
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "im\udce9age"],
        ["run", "image", "--topic", "\udce9"],
        ["runs", "list", "--image", "im\udce9age"],
        ["keys", "create", "jos\udce9", "--role", "client"],
        ["definitions", "show", "x", "--version", "1\udce9"],
    ],
)
def test_an_argument_that_is_not_utf_8_is_told(gyoza: Gyoza, arguments: list[str]) -> None:
    result = gyoza(*arguments)
    assert result.code == ExitCode.USAGE
    assert "\\xe9" in result.sentence
    assert "is not UTF-8 text" in result.sentence


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["worker", "start", "--worker-tags", "a,\udce9"], "tags"),
        (["server", "start", "--host", "\udce9"], "host"),
    ],
)
def test_a_setting_that_is_not_utf_8_is_told(
    gyoza: Gyoza, arguments: list[str], setting: str
) -> None:
    result = gyoza(*arguments)
    assert result.code == ExitCode.USAGE
    assert result.sentence == f"The setting {setting} is not UTF-8 text; correct it."


def test_a_file_may_have_any_name(gyoza: Gyoza, tmp_path: Path) -> None:
    (tmp_path / "op\udce9.yml").write_text("id: op\nimage: i\n")
    assert gyoza("definitions", "apply", "op\udce9.yml").code == ExitCode.OK


def test_what_cannot_be_seen_is_shown_by_its_number(gyoza: Gyoza, url: str) -> None:
    image = "a\u200bb\u202ec\u2066d\ufeffe"
    with GyozaClient(url, KEY) as client:
        run = client.create_run("image", {"text": image}, tags=["never"])["id"]
    shown = gyoza("runs", "show", run).out
    assert "a\\u200bb\\u202ec\\u2066d\\ufeffe" in shown
    as_json = gyoza("runs", "show", run, "--json").out
    assert as_json.isascii()
    assert json.loads(as_json)["inputs"]["text"] == image


@pytest.mark.parametrize("option", ["-V", "--version", "version"])
def test_the_version_is_told(gyoza: Gyoza, option: str) -> None:
    assert gyoza(option).out.startswith("gyoza ")
