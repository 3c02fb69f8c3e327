"""The command as a process of its own: what it imports, what it prints, how it ends."""

import os
import subprocess
import sys

import pytest

from gyoza import __version__
from gyoza.cli.errors import ExitCode

from .conftest import Gyoza

HEAVY = {"trio", "httpx", "docker", "fastapi", "sqlalchemy", "pynvml", "psutil", "yaml", "ctypes"}


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["runs", "show", "../x"]])
def test_a_command_imports_no_more_than_it_needs(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from gyoza.cli.main import main\n"
        "main(sys.argv[1:])\n"
        f"print('IMPORTED', sorted({HEAVY!r} & set(sys.modules)))"
    )
    assert python(code, *arguments).stdout.endswith("IMPORTED []\n")


def test_the_command_runs_as_a_module_and_says_its_version() -> None:
    command = [sys.executable, "-m", "gyoza.cli.main", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gyoza {__version__}\n", "")


def test_the_version_is_said_in_process_as_well(gyoza: Gyoza) -> None:
    assert gyoza("--version").out == f"gyoza {__version__}\n"


def test_help_says_the_exit_codes() -> None:
    code = "import sys; from gyoza.cli.main import main; sys.exit(main(['--help']))"
    done = python(code)
    words = " ".join(done.stdout.split())
    assert all(f"{int(each)} " in words.partition("Exit codes:")[2] for each in ExitCode)


def test_a_narrow_encoding_costs_characters_but_no_traceback() -> None:
    code = (
        "import sys\n"
        "sys.stdout.reconfigure(encoding='ascii', errors='strict')\n"
        "from gyoza.cli.main import main\n"
        "sys.exit(main(['doctor', '--server-url', 'http://127.0.0.1:9']))"
    )
    done = python(code)
    assert "FAILED Server" in done.stdout
    assert done.stderr == ""
    assert done.returncode == ExitCode.FAILED


def test_a_reader_that_has_gone_away_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "gyoza.cli.main", "--help"]
    with os.fdopen(writer) as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def test_without_the_servers_packages_only_the_server_is_missing() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['fastapi', 'h11', 'sqlalchemy']))\n"
        "from gyoza.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = python(code, "server", "start")
    assert done.returncode == ExitCode.MACHINE
    assert done.stderr.count("\n") == 1
    assert "pip install 'gyoza-worker[server]'" in done.stderr
    assert python(code, "runs", "--help").returncode == ExitCode.OK
