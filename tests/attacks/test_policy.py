"""A server that is somebody else's now: what it asks of a worker, and what the worker does."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine, open_fake_engine
from gyoza.worker.containers.image_names import is_allowed
from gyoza.worker.errors import SettingsError
from gyoza.worker.policy import ContainerPolicy
from gyoza.worker.runner.claimed import DEMANDS
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, server, settings, short_periods, start_worker
from tests.worker.programs import sleep_for_ever

__all__ = ["server", "settings", "short_periods", "start_worker"]

RUN_DEMANDS = sorted(DEMANDS)
DIGEST = "sha256:" + "0" * 64

MALFORMED: list[dict[str, Any]] = [
    {"image": 7},
    {"image": ""},
    {"image": "-v/:/host"},
    {"image": "busybox --privileged"},
    {"image": "busybox\nFROM evil"},
    {"image": "x" * 100_000},
    {"image": "bad:"},
    {"image": "bad@"},
    {"image": "Bad/op"},
    {"image": "bad/../../info"},
    {"constraints": {"ram_mb": 5}},
    {"command": "rm -rf /"},
    {"command": [1]},
    {"command": ["a\0b"]},
    {"command": ["\ud800"]},
    {"env_vars": ["PATH"]},
    {"env_vars": {"A=B": "c"}},
    {"env_vars": {"": "c"}},
    {"env_vars": {"A\0": "c"}},
    {"env_vars": {"A": 1}},
    {"env_vars": {"A": "\0"}},
    {"secrets": [None]},
    {"timeout_s": "1"},
    {"timeout_s": -1},
    {"timeout_s": float("nan")},
    {"timeout_s": float("inf")},
    {"timeout_s": 1e300},
    {"timeout_s": True},
    {"grace_s": 1e8},
    {"constraints": [1]},
    {"constraints": {"cpu": "all"}},
    {"constraints": {"cpu": -1}},
    {"constraints": {"ram_mb": 1.5}},
    {"constraints": {"ram_mb": 10**400}},
    {"constraints": {"vram_mb": -1}},
    {"inputs": [1]},
    {"state": "OWNED"},
    {"retry_policy": 3},
    {"created_at": "yesterday"},
    {"events": [1]},
]

NAMELESS: list[Any] = [
    None,
    7,
    [],
    {},
    {"id": None},
    {"id": 7},
    {"id": ""},
    {"id": "."},
    {"id": ".."},
    {"id": "../../etc"},
    {"id": "a/b"},
    {"id": "a\n"},
    {"id": "a\0b"},
    {"id": "-rf"},
    {"id": "\u0661\u0662"},
    {"id": "x" * 64},
    {"id": "a\x1b]0;owned\x07"},
    {"id": "fine", "current_attempt": "1"},
    {"id": "fine", "current_attempt": -1},
    {"id": "fine", "current_attempt": 10**30},
    {"id": "fine", "current_attempt": 1.5},
    {"id": "fine", "current_attempt": True},
]


async def refused(
    server: SmallServer, start_worker: StartWorker, fields: dict[str, Any], **settings: Any
) -> str:
    """Hand out a run with these fields and one that is well; return the refusal's sentence."""
    server.submit("bad", **({"image": "bad"} | fields))
    server.submit("good", "good")
    with trio.fail_after(200):
        async with start_worker(**settings):
            await server.wait_for_event("COMPLETED", "good")
            event = await server.wait_for_event("FAILED", "bad")
    assert event["payload"]["reason"] == "POLICY"
    assert event["payload"]["error_message"] == event["msg"]
    assert len(event["msg"]) < 400
    assert event["msg"].isprintable()
    return event["msg"]


@pytest.fixture
async def engine() -> AsyncGenerator[FakeContainerEngine]:
    async with open_fake_engine() as engine:
        for image in ("bad", "good"):
            engine.add_image(image)
        yield engine


def touched(engine: FakeContainerEngine) -> set[str]:
    """The images and containers that the engine was asked to pull or create."""
    return {subject for method, subject in engine.calls if method in ("pull", "create")}


NOTHING_OF_BAD = {"good", "gyoza-good-1"}


@pytest.mark.parametrize("demand", RUN_DEMANDS)
async def test_a_server_that_asks_for_what_no_run_can_have(
    server: SmallServer, start_worker: StartWorker, engine: FakeContainerEngine, demand: str
) -> None:
    sentence = await refused(server, start_worker, {demand: True})
    assert sentence == f"The run asks for {demand}, which no worker gives."
    assert touched(engine) == NOTHING_OF_BAD


@pytest.mark.parametrize("fields", MALFORMED, ids=lambda fields: ascii(fields)[:40])
async def test_a_server_that_sends_a_run_made_of_nonsense(
    server: SmallServer,
    start_worker: StartWorker,
    engine: FakeContainerEngine,
    fields: dict[str, Any],
) -> None:
    await refused(server, start_worker, fields)
    assert touched(engine) == NOTHING_OF_BAD


@pytest.mark.parametrize("data", NAMELESS, ids=lambda data: ascii(data)[:40])
async def test_a_server_that_sends_a_run_whose_id_would_be_a_path(
    server: SmallServer,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    data: Any,
) -> None:
    server.hand_out = [data]
    server.submit("good", "good")
    with trio.fail_after(200):
        async with start_worker():
            await server.wait_for_event("COMPLETED", "good")
    said = [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()]
    assert len(said) == 1
    assert said[0].isprintable()
    assert {event["run_id"] for event in server.events} == {"good"}


async def test_a_server_that_asks_for_an_image_that_is_not_allowed(
    server: SmallServer, start_worker: StartWorker, engine: FakeContainerEngine
) -> None:
    policy = ContainerPolicy(allow_images=["good"])
    sentence = await refused(
        server, start_worker, {"image": "evil.example.org/good"}, policy=policy
    )
    assert "allow_images" in sentence
    assert touched(engine) == NOTHING_OF_BAD


@pytest.mark.parametrize("asked", [{"cpu": 64}, {"ram_mb": 10**6}])
async def test_a_server_that_asks_for_more_than_one_run_may_have(
    server: SmallServer, start_worker: StartWorker, asked: dict[str, int]
) -> None:
    policy = ContainerPolicy(max_cpu=2, max_ram_mb=512)
    sentence = await refused(server, start_worker, {"constraints": asked}, policy=policy)
    assert f"max_{next(iter(asked))}" in sentence


async def test_a_run_that_asks_for_nothing_gets_the_most_that_one_may_have(
    server: SmallServer, start_worker: StartWorker, engine: FakeContainerEngine
) -> None:
    specs: list[tuple[float | None, int | None]] = []

    async def look(container: FakeContainer) -> int:
        specs.append((container.spec.cpu, container.spec.ram_mb))
        return 0

    engine.add_image("looks", look)
    server.submit("run", "looks")
    with trio.fail_after(200):
        async with start_worker(policy=ContainerPolicy(max_cpu=2, max_ram_mb=512)):
            await server.wait_for_event("COMPLETED", "run")
    assert specs == [(2, 512)]


async def test_a_server_that_hands_out_more_runs_than_were_asked_for(
    server: SmallServer, start_worker: StartWorker, engine: FakeContainerEngine
) -> None:
    engine.add_image("long", sleep_for_ever)
    server.generous = True
    for number in range(20):
        server.submit(f"run-{number}", "long")
    with trio.fail_after(200):
        async with start_worker(max_concurrency=2, drain_timeout_s=0):
            await server.wait_until(
                lambda: sum(request.endswith("/release") for request in server.requests) == 18
            )
            assert {event["run_id"] for event in server.events} <= {"run-0", "run-1"}


async def test_a_server_that_answers_a_claim_with_no_list_at_all(
    server: SmallServer, start_worker: StartWorker
) -> None:
    server.hand_out = {"id": "run"}
    server.submit("good", "good")
    with trio.fail_after(200):
        async with start_worker():
            await server.wait_for_event("COMPLETED", "good")


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"states": [1]},
        {"states": {"good": 7}},
        {"states": {"good": ["CANCELLED"]}},
        {"states": "CANCELLED"},
        {"lease_s": "long"},
        {"lease_s": -1},
        {"lease_s": float("nan")},
        {"lease_s": float("inf")},
        {"cursor": {"a": 1}},
    ],
    ids=ascii,
)
async def test_a_server_that_answers_heartbeats_and_changes_with_nonsense(
    server: SmallServer, start_worker: StartWorker, engine: FakeContainerEngine, answer: Any
) -> None:
    engine.add_image("long", sleep_for_ever)
    server.changes = [{"states": {}, "cursor": "1"}]
    with trio.fail_after(200):
        async with start_worker(drain_timeout_s=0, heartbeat_s=0.02) as worker:
            server.submit("long", "long")
            await server.wait_for_event("STARTED", "long")
            server.odd_answer = answer
            asked = len(server.requests)
            await server.wait_until(lambda: server.requests[asked:].count(HEARTBEAT) > 3)
            await server.wait_until(lambda: CHANGES in server.requests[asked:])
            server.odd_answer = None
            server.submit("good", "good")
            await server.wait_for_event("COMPLETED", "good")
            assert "long" in worker.active.ids


HEARTBEAT = "POST /workers/heartbeat"
CHANGES = "GET /workers/w1/changes"


async def test_a_server_that_does_not_even_take_the_refusal(
    server: SmallServer, start_worker: StartWorker
) -> None:
    server.submit("bad", "bad", privileged=True)
    server.submit("good", "good")
    server.refuse_type("FAILED", 400, "No.")
    with trio.fail_after(200):
        async with start_worker():
            await server.wait_for_event("COMPLETED", "good")
    assert server.told == ["STARTED", "COMPLETED"]


@pytest.mark.parametrize(
    ("pattern", "image"),
    [
        ("python", "python"),
        ("python", "python:3.12"),
        ("python", f"docker.io/library/python@{DIGEST}"),
        ("docker.io/library/python", "index.docker.io/python"),
        ("python:3.*", "python:3.12"),
        ("python:latest", "python"),
        (f"python@{DIGEST}", f"python:3@{DIGEST}"),
        ("me/*", "me/op"),
        ("registry.example.org/ops/**", "registry.example.org/ops/a/b:1"),
        ("localhost:5000/**", "localhost:5000/op"),
        ("docker.io/**", "me/op"),
        ("**", "anything.example.org/at/all:1"),
    ],
)
def test_an_image_that_a_pattern_allows(pattern: str, image: str) -> None:
    assert is_allowed(image, ["never/this", pattern])


@pytest.mark.parametrize(
    ("pattern", "image"),
    [
        ("python", "evil.example.org/python"),
        ("python", "evil/python"),
        ("python", "pythonx"),
        ("python:3.*", "python:4"),
        ("python:3.12", "python"),
        ("python:3.12", f"python:3.12@{DIGEST}"),
        ("python:*", f"python@{DIGEST}"),
        (f"python@{DIGEST}", "python:3"),
        (f"python@{DIGEST}", f"python@sha256:{'1' * 64}"),
        ("python:latest", "python:"),
        ("python", "python:"),
        ("python", "python@"),
        ("python", "python:3@"),
        ("python", "Docker.io/python"),
        ("python", "registry-1.docker.io/python"),
        ("me/*", "Me/op"),
        ("me/*", "me/sub/op"),
        ("me/*", "you/me/op"),
        ("*", "me/op"),
        ("registry.example.org/ops/**", "registry.example.org.evil.org/ops/a"),
        ("registry.example.org/ops/**", "registryXexample.org/ops/a"),
        ("registry.example.org/ops/**", "registry.example.org/opsx"),
        ("localhost:5000/**", "localhost:5001/op"),
        ("**", "5ee2591e72f2"),
        ("**", "sha256:" + "0" * 64),
    ],
)
def test_an_image_that_passes_itself_off_as_one_that_is_allowed(pattern: str, image: str) -> None:
    assert not is_allowed(image, [pattern])


@pytest.mark.parametrize(
    "pattern", ["Me/*", "python:", "python@", "a b", "/python", "a//b", "python@sha256:12", "a@*"]
)
def test_a_pattern_that_stands_for_no_image_is_refused_with_the_settings(pattern: str) -> None:
    with pytest.raises(SettingsError, match=r"allow_images has .* which stands for no image"):
        ContainerPolicy(allow_images=["python", pattern])
