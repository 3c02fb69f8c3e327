"""Output: a container that writes much, until all of it is where it belongs."""

import statistics
import time
from functools import partial
from typing import Any

from gyoza.worker.containers.docker_requests import LOG_CONFIG
from gyoza.worker.logs.spool import MAX_LOG
from gyoza.worker.logs.tail import MAX_TAIL
from tests.benchmarks.engine_events import EngineEvents
from tests.benchmarks.figures import ROUNDS, Figure, Goal, alternate
from tests.benchmarks.stage import IMAGE, Server, Stage

MB = 1_000_000
WRITTEN = 200 * MB
LINE = 100
"""Bytes of a line, its newline included."""
TEXT = "x" * (LINE - 1) + "\n"
"""A line that is no event; all of these are alike."""
EVENT_EVERY = 1000
"""Lines of which one is an event: in turn INFO, as many as a run may tell, and PROGRESS."""
BLOCK = 2 * EVENT_EVERY * LINE * 5
"""Bytes of the file that the op which writes large blocks copies again and again."""
INFOS = WRITTEN // LINE // EVENT_EVERY // 2
DRIVERS: dict[str, dict[str, Any]] = {
    "local": LOG_CONFIG,
    "json-file": {"Type": "json-file", "Config": LOG_CONFIG["Config"]},
    "none": {"Type": "none", "Config": {}},
}
RECEIVED = 1024 * 1024

AWK = """awk -v lines={lines} 'BEGIN {{
  info = sprintf("%-99s", "::gyoza::{{\\"type\\": \\"INFO\\", \\"msg\\": \\"a step\\"}}")
  progress = sprintf("%-99s", "::gyoza::{{\\"type\\": \\"PROGRESS\\", \\"msg\\": 50}}")
  text = sprintf("%99s", ""); gsub(" ", "x", text)
  for (n = 1; n <= lines; n++) {{
    print n % {every} ? text : n / {every} % 2 ? info : progress{each}
  }}
}}'"""

OPS = {
    "large blocks": (
        AWK.format(lines=BLOCK // LINE, every=EVENT_EVERY, each="")
        + f" > /tmp/block && cat{' /tmp/block' * (WRITTEN // BLOCK)}"
    ),
    "line by line": AWK.format(lines=WRITTEN // LINE, every=EVENT_EVERY, each="; fflush()"),
}


async def logs(stage: Stage) -> list[Figure]:
    """From the container's start until COMPLETED, which comes after its log and its events."""
    figures: list[Figure] = []
    async with stage.server() as server, stage.worker(server):
        for case, script in OPS.items():
            command = ["/bin/sh", "-c", script]
            taken = await alternate(
                partial(_followed, stage, server, command),
                partial(stage.floor, partial(_read_raw, stage.name, command, "local")),
            )
            goal = Goal(times=0.9, more_is_better=True)
            drivers = await stage.floor(partial(_compare_drivers, stage.name, command))
            note = (
                f"{WRITTEN // MB} MB in lines of {LINE} bytes, 1 in {EVENT_EVERY} an event: "
                f"{INFOS} INFO, which all arrive, and as many PROGRESS, of which the latest of "
                f"each quarter second does; of the text the first {MAX_LOG >> 20} MiB and the last "
                f"{MAX_TAIL >> 20}. Raw attach by log driver, MB/s: {drivers}"
            )
            figures.append(Figure("logs", "MB/s", goal, *taken, case=case, note=note))
    return figures


async def _followed(stage: Stage, server: Server, command: list[str]) -> float:
    """Let a worker run the op; make sure that nothing is missing."""
    topic = f"bench-{time.time_ns()}"
    with EngineEvents(stage.docker, "start") as events:
        run_id = await server.submit(command, event_delivery={"topic": topic})
        started = await stage.floor(lambda _: events.first("gyoza.run_id", run_id))
    await _has_ended(server, topic)
    ended = time.time()
    run = await server.client.get_run(run_id)
    assert run["state"] == "COMPLETED", run["execution_summary"]
    types = [event["type"] for event in run["events"]]
    assert types.count("INFO") == INFOS
    assert types.count("PROGRESS") > 0
    text = await server.client.get_logs(run_id)
    assert len(text) >= MAX_LOG
    assert text.startswith(TEXT)
    assert text.endswith(TEXT)
    return WRITTEN / MB / (ended - started)


async def _has_ended(server: Server, topic: str) -> None:
    """Wait as a client does that wants each event once."""
    types: set[str] = set()
    cursor = "0"
    while not types & {"COMPLETED", "FAILED"}:
        news = await server.client.get_events(topic, after=cursor, wait_s=30, limit=1000)
        types = {item["event"]["type"] for item in news["data"]}
        cursor = news["cursor"]


def _read_raw(name: str, command: list[str], driver: str, docker: Any) -> float:
    """Attach to the same container and throw away what it writes."""
    host_config = docker.create_host_config(log_config=DRIVERS[driver])
    created = docker.create_container(
        IMAGE, command, labels={"bench": name}, host_config=host_config
    )
    container_id = created["Id"]
    stream = docker.attach_socket(container_id, {"stdout": 1, "stderr": 1, "stream": 1})
    connection, room, received = getattr(stream, "_sock", stream), bytearray(RECEIVED), 0
    with EngineEvents(docker, "start") as events:
        docker.start(container_id)
        while count := connection.recv_into(room):
            received += count
        ended = time.time()
        started = events.first("bench", name)
    stream.close()
    docker.remove_container(container_id, v=True, force=True)
    assert received > WRITTEN
    return WRITTEN / MB / (ended - started)


def _compare_drivers(name: str, command: list[str], docker: Any) -> str:
    """Return the medians of all drivers, measured in turn."""
    taken: dict[str, list[float]] = {driver: [] for driver in DRIVERS}
    for _ in range(ROUNDS):
        for driver, rates in taken.items():
            rates.append(_read_raw(name, command, driver, docker))
    return ", ".join(f"{driver} {statistics.median(taken[driver]):.0f}" for driver in taken)
