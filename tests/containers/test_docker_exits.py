"""Exits that the engine tells of by its events, before it answers waits."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from gyoza.worker.containers.engine import ContainerExit
from gyoza.worker.containers.labels import GPUS, RUN_ID
from gyoza.worker.errors import EngineError, EngineUnavailable
from tests.containers.bench import Bench
from tests.containers.proxy import Proxy
from tests.containers.scripted import BEGUN, Script, answer

SLOW = 200
LAST_CHUNK = b"0\r\n\r\n"


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


def told(action: str, container_id: str, **attributes: str) -> bytes:
    event: dict[str, Any] = {"Action": action, "Actor": {"ID": container_id}}
    event["Actor"]["Attributes"] = attributes
    return json.dumps(event).encode() + b"\n"


@pytest.mark.docker
async def test_a_container_that_ends_well_is_known_to_before_its_wait_is_answered(
    bench_behind_proxy: Bench, proxy: Proxy
) -> None:
    engine, exits = bench_behind_proxy.engine, list[ContainerExit]()

    async def wait(container_id: str) -> None:
        exits.append(await engine.wait(container_id))

    with trio.fail_after(SLOW):
        async with (
            bench_behind_proxy.running("ends-well-when-asked", labels={RUN_ID: "x"}) as ours,
            trio.open_nursery() as services,
        ):
            await services.start(engine.hear_exits)
            proxy.freeze_at = b"/wait"
            async with trio.open_nursery() as waits:
                waits.start_soon(wait, ours)
                await proxy.frozen.wait()
                await engine.ask_to_stop(ours)
            services.cancel_scope.cancel()
    assert exits == [ContainerExit(0)]


@pytest.mark.parametrize(
    "events",
    [
        [told("die", "x", exitCode="3")],
        [told("die", "x", exitCode="0", **{GPUS: "GPU-1"})],
        [told("oom", "x"), told("die", "x", exitCode="0")],
    ],
    ids=["that_failed", "that_has_gpus", "that_was_short_of_memory"],
)
async def test_a_container_that_may_not_have_ended_well_is_looked_at(
    scripted: Script, events: list[bytes]
) -> None:
    tell, heard = trio.open_memory_channel[bytes](9)
    answer_wait, answered = trio.open_memory_channel[bytes](9)
    state = {"Status": "exited", "ExitCode": 4, "OOMKilled": True, "Error": ""}
    answers = {
        b"/events": heard,
        b"/x/wait": answered,
        b"/y/wait": BEGUN,
        b"/x/json": answer(200, {"State": state}),
    }
    exits: dict[str, ContainerExit] = {}
    y_ended = trio.Event()

    async with scripted(answers) as engine, trio.open_nursery() as services:

        async def wait(container_id: str) -> None:
            exits[container_id] = await engine.wait(container_id)
            if container_id == "y":
                y_ended.set()

        await tell.send(BEGUN)
        await services.start(engine.hear_exits)
        async with trio.open_nursery() as waits:
            waits.start_soon(wait, "x")
            waits.start_soon(wait, "y")
            await trio.testing.wait_all_tasks_blocked()
            text = b"".join(events) + told("die", "y", exitCode="0", **{GPUS: ""})
            for part in (text[:20], text[20:]):
                await tell.send(chunk(part))
            await y_ended.wait()
            assert "x" not in exits
            await answer_wait.send(BEGUN + LAST_CHUNK)
        services.cancel_scope.cancel()
    assert exits == {"x": ContainerExit(4, oom_killed=True), "y": ContainerExit(0)}


async def test_a_wait_goes_on_when_the_engine_stops_telling(scripted: Script) -> None:
    tell, heard = trio.open_memory_channel[bytes](9)
    answer_wait, answered = trio.open_memory_channel[bytes](9)
    state = {"Status": "exited", "ExitCode": 4, "OOMKilled": False, "Error": ""}
    answers = {b"/events": heard, b"/wait": answered, b"/json": answer(200, {"State": state})}
    exits: list[ContainerExit] = []
    async with scripted(answers) as engine, trio.open_nursery() as waits:

        async def wait() -> None:
            exits.append(await engine.wait("x"))

        await tell.send(BEGUN)
        async with trio.open_nursery() as services:
            await services.start(engine.hear_exits)
            waits.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await tell.aclose()
        assert not exits
        await answer_wait.send(BEGUN + LAST_CHUNK)
    assert exits == [ContainerExit(4)]


async def test_events_that_end_on_a_connection_that_stays_have_ended(scripted: Script) -> None:
    tell, heard = trio.open_memory_channel[bytes](9)
    await tell.send(BEGUN + LAST_CHUNK)
    async with scripted({b"/events": heard}) as engine:
        await engine.hear_exits()


async def test_events_that_are_none_are_an_error(scripted: Script) -> None:
    tell, heard = trio.open_memory_channel[bytes](9)
    await tell.send(BEGUN + chunk(b"{}\n"))
    async with scripted({b"/events": heard}) as engine:
        with pytest.raises(EngineError, match="make no sense"):
            await engine.hear_exits()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([BEGUN, chunk(told("oom", "x"))], True),
        ([answer(200, {"Action": "oom"})], True),
        ([BEGUN, LAST_CHUNK], False),
        ([answer(403, {"message": "forbidden"})], False),
    ],
    ids=["told", "told_through_a_proxy", "not_told", "refused"],
)
async def test_a_kill_for_memory_may_be_told_after_the_exit(
    scripted: Script, said: list[bytes], expected: bool
) -> None:
    tell, heard = trio.open_memory_channel[bytes](9)
    for part in said:
        await tell.send(part)
    await tell.aclose()
    async with scripted({b"/events?since=0": heard}) as engine:
        assert await engine.killed_for_memory("x") is expected


def bridge(made: str) -> bytes:
    return answer(200, {"Created": made})


OUTLIVED = answer(200, {"LiveRestoreEnabled": True})
NOT_OUTLIVED = answer(200, {"LiveRestoreEnabled": False})
FORBIDDEN = answer(403, {"message": "forbidden"})
NO_BRIDGE = answer(404, {"message": "network bridge not found"})
DIED = [BEGUN, chunk(told("die", "x", exitCode="255"))]
NOTHING = [BEGUN, LAST_CHUNK]


@pytest.mark.parametrize(
    ("info", "made_bridge", "events", "expected"),
    [
        (NOT_OUTLIVED, bridge("2026-05-01T10:00:00.999999999Z"), NOTHING, True),
        (NOT_OUTLIVED, bridge("2026-05-01T10:00:02.000000001Z"), NOTHING, False),
        (NOT_OUTLIVED, bridge("2026-05-01T11:59:00.9+02:00"), NOTHING, True),
        (NOT_OUTLIVED, bridge("2026-05-01T10:00:02Z"), DIED, True),
        (NOT_OUTLIVED, NO_BRIDGE, DIED, True),
        (NOT_OUTLIVED, NO_BRIDGE, NOTHING, False),
        (NOT_OUTLIVED, FORBIDDEN, DIED, True),
        (OUTLIVED, bridge("2026-05-01T10:00:00Z"), DIED, True),
        (OUTLIVED, bridge("2026-05-01T10:00:00Z"), NOTHING, False),
        (answer(200, {}), bridge("2026-05-01T10:00:00Z"), NOTHING, False),
    ],
    ids=[
        "after_the_engine_started",
        "before_the_engine_started",
        "in_another_time_zone",
        "told_by_an_event",
        "told_by_an_event_without_a_bridge",
        "not_told_without_a_bridge",
        "told_where_networks_may_not_be_asked_for",
        "told_where_containers_outlive_the_engine",
        "not_told_where_containers_outlive_the_engine",
        "not_told_where_containers_may_outlive_the_engine",
    ],
)
async def test_an_exit_was_seen_if_it_came_after_the_engines_start_or_there_is_an_event(
    scripted: Script, info: bytes, made_bridge: bytes, events: list[bytes], expected: bool
) -> None:
    tell, heard = trio.open_memory_channel[bytes](9)
    for part in events:
        await tell.send(part)
    await tell.aclose()
    answers = {
        b"/containers/x/json": answer(200, {"State": {"FinishedAt": "2026-05-01T10:00:01.5Z"}}),
        b"/info": info,
        b"/networks/bridge": made_bridge,
        b"/events?since=0": heard,
    }
    async with scripted(answers) as engine:
        assert await engine.saw_exit("x") is expected


async def test_whether_an_exit_was_seen_is_asked_again_when_the_engine_is_back(
    scripted: Script,
) -> None:
    answers = {
        b"/containers/x/json": answer(200, {"State": {"FinishedAt": "2026-05-01T10:00:01.5Z"}}),
        b"/info": NOT_OUTLIVED,
        b"/networks/bridge": answer(503, {"message": "shutting down"}),
    }
    async with scripted(answers) as engine:
        with pytest.raises(EngineUnavailable):
            await engine.saw_exit("x")
