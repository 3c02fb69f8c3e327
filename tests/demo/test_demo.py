import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.labels import of_worker

LIMIT_S = 200


@contextmanager
def started_demo(folder: Path, **variables: str) -> Generator["subprocess.Popen[str]"]:
    """The demo as a person without a terminal starts it; its temporary files go to `folder`."""
    environment = os.environ | {"TMPDIR": str(folder), "COLUMNS": "100"} | variables
    with subprocess.Popen(
        [sys.executable, "-m", "gyoza.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def find_leftovers(said: str) -> list[str]:
    """What the demo that said this has left at the engine."""
    name = re.findall(r"worker (demo-\w+)", said)[0]
    images = [f"gyoza-{name}-python:latest", f"gyoza-{name}-shell:latest"]
    async with open_docker_engine() as engine:
        left = [container.name for container in await engine.list(of_worker(name))]
        return left + [image for image in images if await engine.find_image(image)]


@pytest.mark.docker
async def test_the_demo_shows_all_runs_as_planned_and_leaves_nothing(tmp_path: Path) -> None:
    with started_demo(tmp_path) as demo:
        out, err = demo.communicate(timeout=LIMIT_S)

    assert (demo.returncode, err) == (0, "")
    states = re.findall(r"^\w.* (COMPLETED|FAILED|CANCELLED) .* s$", out, re.MULTILINE)
    assert sorted(states) == ["CANCELLED", *["COMPLETED"] * 13, "FAILED"]
    assert re.search(r"^words in everything +words \d+, different \d+, often", out, re.MULTILINE)
    assert re.search(r"^words, in plain shell +the \d+,", out, re.MULTILINE)
    assert "FAILED outline of the docs, EXIT_CODE: The op exited with code 1." in out
    assert "SyntaxError" in out
    assert re.search(
        r"CANCELLED one after [\d.]+ s, at \d+ %; its container was gone [\d.]+ s later\.", out
    )
    assert out.endswith("Nothing is left behind.\n")
    assert await find_leftovers(out) == os.listdir(tmp_path) == []


@pytest.mark.docker
async def test_ctrl_c_in_the_middle_of_the_demo_leaves_nothing(tmp_path: Path) -> None:
    with started_demo(tmp_path) as demo:
        assert demo.stdout
        assert demo.stderr
        said = ""
        while "STARTED" not in said:  # containers are running now
            line = demo.stdout.readline()
            assert line, demo.stderr.read()
            said += line
        demo.send_signal(signal.SIGINT)
        _, err = demo.communicate(timeout=LIMIT_S)

    assert (demo.returncode, err) == (130, "gyoza.demo: interrupted; nothing is left behind.\n")
    assert await find_leftovers(said) == os.listdir(tmp_path) == []


def test_the_demo_without_an_engine_says_what_to_do(tmp_path: Path) -> None:
    with started_demo(tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock") as demo:
        out, err = demo.communicate(timeout=LIMIT_S)

    assert (demo.returncode, out) == (1, "")
    assert err.startswith("gyoza.demo: ")
    assert "Docker" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
