import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gyoza.cli.doctor import Verdict, judge_disk
from gyoza.cli.errors import ExitCode
from gyoza.cli.main import main
from gyoza.worker.worker_context import GPU
from tests.client.scripted import Answer, Scripted, scripted_server

from .conftest import Gyoza

ENGINE = {"ServerVersion": "20.10.1", "DockerRootDir": "/var/lib/docker", "ApiVersion": "1.41"}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """What answers as a Docker Engine, over TCP."""
    with scripted_server(Answer(ENGINE)) as server:
        monkeypatch.setenv("DOCKER_HOST", server.url.replace("http", "tcp"))
        yield server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """What answers as a gyoza server: its health, then its workers."""
    with scripted_server(Answer({"status": "ok"}), Answer([])) as server:
        monkeypatch.setenv("GYOZA_SERVER_URL", server.url)
        yield server


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with room on its disk and without a GPU."""
    free_gb(monkeypatch, 80)
    gpus(monkeypatch)


def free_gb(monkeypatch: pytest.MonkeyPatch, gb: float) -> None:
    def usage(_path: Path) -> Usage:
        return Usage(0, 0, int(gb * 1024**3))

    monkeypatch.setattr(shutil, "disk_usage", usage)


def gpus(monkeypatch: pytest.MonkeyPatch, *found: GPU) -> None:
    def detect() -> list[GPU]:
        return list(found)

    monkeypatch.setattr("gyoza.worker.worker_context.nvidia.detect_gpus", detect)


def test_a_machine_without_a_gpu_is_well(
    gyoza: Gyoza, engine: Scripted, server: Scripted, home: Path
) -> None:
    result = gyoza("doctor")
    assert result.code == ExitCode.OK
    assert result.out.splitlines() == [
        "✓ Docker  Engine 20.10.1 answers.",
        f"✓ Server  {server.url} answers.",
        "✓ Key     The server accepts the key.",
        f"✓ Disk    80.0 GB are free under {home}/data/gyoza/work.",
        "! GPU     No GPU found (only a problem if your ops need one).",
    ]


def test_where_only_ascii_can_be_shown_well_and_failed_are_told_apart(
    engine: Scripted, no_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["doctor"]) == ExitCode.FAILED
    screen.seek(0)
    told = [line.split()[:2] for line in screen.read().splitlines()]
    assert told == [
        ["ok", "Docker"],
        ["FAILED", "Server"],
        ["!", "Key"],
        ["ok", "Disk"],
        ["!", "GPU"],
    ]


def test_gpus_are_named_with_their_memory(
    gyoza: Gyoza, engine: Scripted, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, GPU(0, 81559, ["cuda", "nvidia-h100"]), GPU(1, 16384, ["cuda", "nvidia-t4"]))
    assert "✓ GPU     Found nvidia-h100 (81559 MB), nvidia-t4 (16384 MB)." in gyoza("doctor").out


def test_with_json_it_is_one_document(gyoza: Gyoza, engine: Scripted, server: Scripted) -> None:
    result = gyoza("doctor", "--json")
    answer = json.loads(result.out)
    assert answer["ok"] is True
    assert [check["name"] for check in answer["checks"]] == [
        "Docker",
        "Server",
        "Key",
        "Disk",
        "GPU",
    ]
    assert answer["checks"][4]["verdict"] == "warn"


def test_an_engine_that_cannot_limit_containers_is_told(
    gyoza: Gyoza, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlimited = ENGINE | {"MemoryLimit": False, "PidsLimit": False, "CpuCfsQuota": True}
    with scripted_server(Answer(unlimited)) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url.replace("http", "tcp"))
        said = gyoza("doctor").out
    assert "! Docker  The Docker Engine cannot limit memory, processes of containers" in said


def test_without_docker_it_says_what_to_do(
    gyoza: Gyoza, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    result = gyoza("doctor")
    assert result.code == ExitCode.FAILED
    assert "✗ Docker  " in result.out
    assert "tcp://127.0.0.1:9" in result.out


def test_without_a_server_the_key_is_not_checked(
    gyoza: Gyoza, engine: Scripted, no_server: str
) -> None:
    result = gyoza("doctor")
    assert result.code == ExitCode.FAILED
    assert f"✗ Server  The server at {no_server} does not answer" in result.out
    assert "! Key     Not checked" in result.out


def test_before_the_first_server_a_newcomer_is_told_how_to_start_one(
    gyoza: Gyoza, engine: Scripted, no_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GYOZA_SERVER_URL")
    monkeypatch.setattr("gyoza.client.access.DEFAULT_URL", no_server)
    result = gyoza("doctor")
    assert result.code == ExitCode.OK
    assert "! Server  None runs here yet; start server and worker with `gyoza up`" in result.out
    assert "! Key     Not checked: no server." in result.out


def test_a_refused_key_says_the_servers_sentence(
    gyoza: Gyoza, engine: Scripted, server: Scripted
) -> None:
    server.answers[1:] = [Answer({"detail": "The API key is wrong."}, 401)]
    result = gyoza("doctor")
    assert result.code == ExitCode.FAILED
    assert "✗ Key     The API key is wrong." in result.out


def test_a_server_that_is_something_else_is_told(
    gyoza: Gyoza, engine: Scripted, server: Scripted
) -> None:
    server.answers[:] = [Answer(b"<h1>hello</h1>")]
    assert "did not answer as a gyoza server does" in gyoza("doctor").out


def test_an_address_that_is_no_url_is_told(gyoza: Gyoza, engine: Scripted) -> None:
    result = gyoza("doctor", "--server-url", "localhost")
    assert result.code != ExitCode.OK
    assert "is not the URL of a server" in result.out + result.err


@pytest.mark.parametrize(
    ("gb", "verdict"), [(5, Verdict.OK), (4.9, Verdict.WARN), (0.9, Verdict.FAIL)]
)
def test_little_room_is_a_warning_and_none_prevents_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gb: float, verdict: Verdict
) -> None:
    free_gb(monkeypatch, gb)
    check = judge_disk(tmp_path / "not" / "yet")
    assert check.verdict is verdict
    assert ("GYOZA_WORK_DIR" in check.text) is (verdict is not Verdict.OK)


def test_a_work_directory_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = judge_disk(tmp_path / "file" / "work")
    assert check.verdict is Verdict.FAIL
    assert check.text.startswith(f"{tmp_path}/file cannot be written to; ")


def test_settings_that_cannot_be_used_are_told(
    gyoza: Gyoza, engine: Scripted, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GYOZA_MAX_CONCURRENCY", "many")
    result = gyoza("doctor")
    assert result.code == ExitCode.FAILED
    assert "GYOZA_MAX_CONCURRENCY" in result.out


@pytest.mark.parametrize(
    ("engine_says", "variable", "sentence"),
    [
        ({"InitCommit": {"ID": "N/A"}}, ("GYOZA_NETWORK", "none"), "has no docker-init"),
        ({"Runtimes": {"runc": {}}}, ("GYOZA_RUNTIME", "runsc"), "has no runtime runsc"),
        ({"NCPU": 2}, ("GYOZA_MAX_CPU", "64"), "The setting max_cpu is 64"),
    ],
)
def test_what_docker_lacks_for_the_workers_settings_is_told(
    gyoza: Gyoza,
    server: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    engine_says: dict[str, Any],
    variable: tuple[str, str],
    sentence: str,
) -> None:
    monkeypatch.setenv(*variable)
    with scripted_server(Answer(ENGINE | engine_says)) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url.replace("http", "tcp"))
        result = gyoza("doctor")
    assert result.code == ExitCode.FAILED
    assert sentence in result.out
