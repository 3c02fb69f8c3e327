"""An op floods its worker: with lines, with one endless line, with events, with what is no text.

The worker is a process of its own, on a real engine. Whatever the op writes, another run is
claimed, executed and completed meanwhile, heartbeats go on, memory stays bounded, and the end of
the log is there, with the cut before it marked.
"""

import json
import os
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from gyoza.worker.logs.spool import MAX_LOG
from gyoza.worker.reports.events import MAX_EVENT_BYTES
from tests.images import busybox_image
from tests.support.deployment import Deployment, open_deployment

__all__ = ["busybox_image"]

pytestmark = pytest.mark.docker

KEY = "a-key-for-floods"
LIMIT_S = 200
MAX_GROWTH_KB = 48 * 1024

UNTIL_TOLD = """
echo first; n=0
while [ ! -e /gyoza/stop ] || [ $n -lt {least} ]; do {flood}; n=$((n+1)); done
"""


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncGenerator[Deployment]:
    """A server, and a worker that has executed a run, so that it has loaded what it needs."""
    settings = ServerSettings(port=0, database_url=f"sqlite:///{tmp_path}/db", api_key=KEY)
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve, settings)
        async with open_deployment(url, KEY, tmp_path) as deployment:
            # Not through the proxy: that is a Python program, too, and would slow the flood.
            engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
            await deployment.start(DOCKER_HOST=engine)
            yield deployment
        nursery.cancel_scope.cancel()


def peak_kb(deployment: Deployment) -> int:
    """Return the most memory that the worker has had so far."""
    status = Path(f"/proc/{deployment.pid}/status").read_text()
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(peak)


async def another_run(deployment: Deployment, image: str) -> None:
    run_id = await deployment.submit(image, ["sh", "-c", "echo hello"])
    assert (await deployment.end_of(run_id))["state"] == "COMPLETED"
    assert await deployment.client.get_logs(run_id) == "hello\n"


async def flooded(
    deployment: Deployment, image: str, flood: str, least: int, end: str
) -> tuple[dict[str, Any], str]:
    """Let an op flood for as long as another run takes; return it as it has ended, and its log."""
    await another_run(deployment, image)
    idle = peak_kb(deployment)
    script = UNTIL_TOLD.format(least=least, flood=flood) + "\n" + end
    run_id = await deployment.submit(image, ["sh", "-c", script])
    await deployment.until(run_id, "STARTED")
    await another_run(deployment, image)
    for _ in range(5):
        await deployment.server.watch(b"/workers/heartbeat").wait()
    assert (await deployment.client.get_run(run_id))["state"] == "RUNNING"
    (deployment.directory / f"{run_id}.1" / "gyoza" / "stop").touch()
    run = await deployment.end_of(run_id)
    assert run["state"] == "COMPLETED", run
    assert peak_kb(deployment) - idle < MAX_GROWTH_KB
    await deployment.drain()  # the rest of the log may come after the end
    return run, await deployment.client.get_logs(run_id)


def check_cut(log: str, total: int) -> None:
    """See that beginning and end are there, and that the word between them counts right."""
    [(before, cut, after)] = re.findall(
        r"(?s)^(.*)\n\[gyoza: (\d+) bytes of the log are cut here\]\n(.*)$", log
    )
    assert len(before) + int(cut) + len(after) == total
    assert len(before) <= MAX_LOG
    assert int(cut) > 0


async def test_an_op_that_writes_lines_as_fast_as_it_can(
    deployment: Deployment, busybox_image: str
) -> None:
    lines = 1_500_000
    with trio.fail_after(LIMIT_S):
        _, log = await flooded(
            deployment, busybox_image, f"yes flooded | head -n {lines}", 6, "echo $n floods"
        )
    floods = int(log.splitlines()[-1].split()[0])
    assert log.startswith("first\nflooded\n")
    assert log.endswith(f"\nflooded\n{floods} floods\n")
    end = f"first\n{floods} floods\n"
    check_cut(log, floods * lines * len("flooded\n") + len(end))


async def test_an_op_that_writes_one_line_of_350_megabytes_without_an_end(
    deployment: Deployment, busybox_image: str
) -> None:
    size = 35_000_000
    flood = f"head -c {size} /dev/zero | tr '\\0' x"
    with trio.fail_after(LIMIT_S):
        _, log = await flooded(deployment, busybox_image, flood, 10, "printf ,$n,")
    floods = int(log.split(",")[-2])
    assert floods >= 10
    assert log.endswith(f"xxx,{floods},")
    check_cut(log, len("first\n") + floods * size + len(f",{floods},"))


LARGE, SIZE = 20, 60_000
EVENTS = f"""
if [ $n = 0 ]; then
  large=$(head -c {SIZE} /dev/zero | tr '\\0' x)
  yes '::gyoza::{{"type": "ERROR", "msg": "'$large'"}}' | head -n {LARGE}
fi
yes '::gyoza::{{"type": "INFO", "msg": "flood"}}' | head -n 50000
seq 0 99 | sed 's/.*/::gyoza::{{"type": "PROGRESS", "msg": &}}/'
"""


async def test_an_op_that_sends_events_as_fast_as_it_can(
    deployment: Deployment, busybox_image: str
) -> None:
    end = """
    echo '::gyoza::{"type": "PROGRESS", "msg": 100}'
    echo '::gyoza::{"type": "ERROR", "msg": "the last"}'
    echo $n floods
    """
    with trio.fail_after(LIMIT_S):
        run, log = await flooded(deployment, busybox_image, EVENTS.strip(), 2, end)
    floods = int(log.split()[-2])
    assert log == f"first\n{floods} floods\n"
    told = [(event["type"], event["msg"]) for event in run["events"]]
    fitting = MAX_EVENT_BYTES // len(json.dumps(["x" * SIZE, {}]))
    assert [msg for kind, msg in told if kind == "ERROR"] == ["x" * SIZE] * fitting
    errors = LARGE - fitting + 1
    dropped = (
        f"{50_000 * floods} INFO and {errors} ERROR events were dropped: too many for one run."
    )
    assert [msg for kind, msg in told if kind == "INFO"] == [dropped]
    assert [kind for kind, _ in told[-3:]] == ["PROGRESS", "INFO", "COMPLETED"]
    progress = [msg for kind, msg in told if kind == "PROGRESS"]
    assert progress[-1] == 100 == run["progress"]
    assert len(progress) < 100


NO_TEXT = r"""
i=0; while [ $i -lt 3000 ]; do printf 'aé€😀\377\0\033[31m\r50%%'; i=$((i+1)); done
printf '\n\r::gyoza::{"type": "INFO", "msg": "after a carriage return"}\n'
printf '\033[0m::gyoza::{"type": "INFO", "msg": "after a colour"}\n'
printf '::gyoza::{"type": "COMPLETED", "msg": "mine"}\n'
printf '::gyoza::::gyoza::{"type": "INFO", "msg": "nested"}\n'
printf '::gyoza::{"type": "INFO", "msg": "whole", "payload": {"run_id": "other"}}\n'
printf 'the end \342\202'
"""


async def test_an_op_that_writes_what_is_no_text_and_what_is_no_event(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        run_id = await deployment.submit(busybox_image, ["sh", "-c", NO_TEXT])
        run = await deployment.end_of(run_id)
        await deployment.drain()
    log = await deployment.client.get_logs(run_id)
    expected = "a\u00e9\u20ac\U0001f600\ufffd\0\x1b[31m\r50%" * 3000
    lines = log.split("\n")
    assert lines[0] == expected
    assert lines[1:-1] == [
        '\r::gyoza::{"type": "INFO", "msg": "after a carriage return"}',
        '\x1b[0m::gyoza::{"type": "INFO", "msg": "after a colour"}',
        '::gyoza::{"type": "COMPLETED", "msg": "mine"}',
        '::gyoza::::gyoza::{"type": "INFO", "msg": "nested"}',
    ]
    assert lines[-1] == "the end \ufffd"
    [info] = [event for event in run["events"] if event["type"] == "INFO"]
    assert (info["msg"], info["payload"]) == ("whole", {"run_id": "other"})
