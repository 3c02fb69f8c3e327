"""A person at the command line, with a real worker at the other end."""

import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import trio

from tests.e2e.conftest import KEY, OpenSystem, System

pytestmark = pytest.mark.docker

PROGRESS = 'echo words; echo \'::gyoza::{"type": "PROGRESS", "msg": 40}\'; '


def gyoza(system: System, *arguments: str) -> list[str]:
    command = ["env", f"GYOZA_API_KEY={KEY}", sys.executable, "-m", "gyoza.cli.main"]
    return [*command, arguments[0], "--server-url", system.url, *arguments[1:]]


async def call(system: System, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return await trio.run_process(
        gyoza(system, *arguments), capture_stdout=True, capture_stderr=True, check=False
    )


async def test_follow_shows_log_and_outputs_and_ends_with_the_run(
    open_system: OpenSystem, busybox_image: str
) -> None:
    script = PROGRESS + 'cp "$GYOZA_INPUT_JSON_PATH" "$GYOZA_OUTPUT_PATH"'
    with trio.fail_after(200):
        async with open_system() as system:
            done = await call(
                system, "run", busybox_image, "-i", "n=3", "--follow", "--", "sh", "-c", script
            )
            failed = await call(system, "run", busybox_image, "--follow", "--", "false")
    assert done.returncode == 0
    assert b"words" in done.stdout
    assert b'"n": 3' in done.stdout
    assert b"40" in done.stderr
    assert failed.returncode == 1
    assert b"The op exited with code 1." in failed.stderr
    assert b"Traceback" not in done.stderr + failed.stderr


async def test_ctrl_c_while_following_leaves_the_run_and_says_how_to_look_at_it(
    open_system: OpenSystem, busybox_image: str
) -> None:
    with trio.fail_after(200):
        async with open_system(grace_s=0) as system, trio.open_nursery() as nursery:
            options = ["--follow", "--topic", "watched", "--", "sleep", "60"]
            command = gyoza(system, "run", busybox_image, *options)
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    command,
                    check=False,
                    capture_stderr=True,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )
            )
            run_id = await _started_run(system)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            assert (await system.client.get_run(run_id))["state"] == "RUNNING"
            await system.client.cancel_run(run_id)


async def _started_run(system: System) -> str:
    """Return the id of the run of topic `watched`, once it has started."""
    cursor = "0"
    while True:
        news = await system.client.get_events("watched", after=cursor, wait_s=30)
        for item in news["data"]:
            if item["event"]["type"] == "STARTED":
                return item["run_id"]
        cursor = news["cursor"]
