"""The loops around the runs: heartbeats, claims, state refresh; the settings."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from gyoza.testing import FakeContainerEngine
from gyoza.worker.backoff import Backoff
from gyoza.worker.errors import SettingsError
from gyoza.worker.execution_pipeline import ExecutionContext, Pipeline, execution_pipeline
from gyoza.worker.policy import ContainerPolicy
from gyoza.worker.runner.supervisor import open_worker, run_worker
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import WorkerContext
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever


def creations(engine: FakeContainerEngine) -> list[str]:
    return [name for method, name in engine.calls if method == "create"]


async def test_heartbeats_go_on_and_list_what_runs(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper", constraints={"cpu": 1})
    with trio.fail_after(200):
        async with start_worker(heartbeat_s=0.01, tags=["fast"]) as worker:
            await server.wait_for_event("STARTED", "run-1")
            seen = len(server.heartbeats)
            await server.wait_until(lambda: len(server.heartbeats) > seen + 2)
            beat = server.heartbeats[-1]
            server.cancel("run-1")
            await end_of(worker, "run-1")
    assert beat["worker_id"] == "w1"
    assert beat["tags"] == ["fast"]
    assert beat["resources"] == {"cpu_cores": 2, "ram_mb": 1024, "gpus": []}
    assert (beat["engine"], beat["disk"]) == ("ok", "ok")
    [running] = beat["running_ops"]
    assert (running["id"], running["image"], running["constraints"]["cpu"]) == (
        "run-1",
        "sleeper",
        1,
    )


async def test_a_heartbeat_does_not_grow_with_the_inputs_of_what_runs(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper", inputs={"text": "x" * 100_000})
    with trio.fail_after(200):
        async with start_worker(heartbeat_s=0.01) as worker:
            await server.wait_for_event("STARTED", "run-1")
            await server.wait_until(lambda: bool(server.heartbeats[-1]["running_ops"]))
            server.cancel("run-1")
            await end_of(worker, "run-1")
            assert worker.active.ids == []
    assert all(len(str(beat)) < 10_000 for beat in server.heartbeats)


async def test_a_refused_key_ends_the_worker_with_one_sentence(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    server.refuse("POST", "/workers/heartbeat", 401, "Wrong key.")
    with trio.fail_after(200), pytest.raises(ExceptionGroup) as caught:
        await run_worker(settings, engine=engine)
    assert caught.group_contains(SettingsError, match="Wrong key.*GYOZA_API_KEY")


async def test_a_key_that_does_not_allow_a_tag_is_not_the_wrong_one(
    server: SmallServer, engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    server.refuse("POST", "/workers/heartbeat", 403, "The key does not allow the tag.")
    with trio.fail_after(200), pytest.raises(ExceptionGroup) as caught:
        await run_worker(settings, engine=engine)
    assert caught.group_contains(SettingsError, match=r"worker: The key does not allow the tag\.$")


async def test_a_server_that_is_away_is_tried_until_it_is_back(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("quick")
    server.refuse("POST", "/workers/heartbeat", 503, "Soon.", times=2)
    with trio.fail_after(200), caplog.at_level(logging.INFO):
        async with start_worker(heartbeat_s=0.01):
            server.refuse("POST", "/workers/heartbeat", 503, "Soon.", times=2)
            seen = len(server.heartbeats)
            await server.wait_until(lambda: len(server.heartbeats) > seen + 1)
    assert caplog.text.count("No heartbeat reaches the server") == 2
    assert "reach the server again" in caplog.text


async def test_a_claim_that_fails_is_repeated(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("quick")
    server.refuse("POST", "/workers/w1/claim", 500, "Broken.", times=1)
    server.submit("run-1", "quick")
    with trio.fail_after(200):
        async with start_worker():
            await server.wait_for_event("COMPLETED", "run-1")
    assert "No runs can be claimed: Broken." in caplog.text


async def test_a_worker_never_has_more_runs_than_slots(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    for number in range(3):
        server.submit(f"run-{number}", "quick")
    with trio.fail_after(200):
        async with start_worker(max_concurrency=1):
            await server.wait_until(
                lambda: all(run["state"] == "COMPLETED" for run in server.runs.values())
            )
    created = [i for i, (method, _) in enumerate(engine.calls) if method == "create"]
    removed = [i for i, (method, _) in enumerate(engine.calls) if method == "remove"]
    assert len(created) == 3
    assert sorted(created + removed) == [
        i for pair in zip(created, removed, strict=True) for i in pair
    ]


async def test_runs_that_cannot_be_read_are_left_out_or_refused_and_the_rest_is_run(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.add_image("quick")
    server.submit("../../etc", "quick")
    server.submit("run-0", "quick", constraints="much")
    server.submit("run-1", "quick")
    with trio.fail_after(200):
        async with start_worker():
            await server.wait_for_event("COMPLETED", "run-1")
    assert caplog.text.count("cannot be read") == 1
    assert (await server.wait_for_event("FAILED", "run-0"))["payload"]["reason"] == "POLICY"


async def test_a_run_claimed_twice_is_run_once(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            server.hand_out_again("run-1")
            engine.add_image("quick")
            server.submit("run-2", "quick")
            await server.wait_for_event("COMPLETED", "run-2")
            server.cancel("run-1")
            await end_of(worker, "run-1")
    assert [e["type"] for e in server.events if e["run_id"] == "run-1"] == ["STARTED"]


async def test_the_next_attempt_waits_until_the_last_one_is_cleaned_up(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    server.submit("run-1", "quick", current_attempt=1)
    reached, opened = trio.Event(), trio.Event()

    async def tidy_up(ctx: ExecutionContext) -> ExecutionContext:
        reached.set()
        await opened.wait()
        return ctx

    pipeline = Pipeline([*execution_pipeline.steps, tidy_up])
    with trio.fail_after(200):
        async with start_worker(pipeline=pipeline):
            await reached.wait()
            server.runs["run-1"] |= {"current_attempt": 2, "state": "ASSIGNED"}
            server.hand_out_again("run-1")
            claims = server.requests.count("POST /workers/w1/claim")
            await server.wait_until(
                lambda: server.requests.count("POST /workers/w1/claim") > claims
            )
            assert len(creations(engine)) == 1
            opened.set()
            await server.wait_until(lambda: server.events[-1]["attempt"] == 2)
            await server.wait_until(lambda: server.runs["run-1"]["state"] == "COMPLETED")
    assert creations(engine) == ["gyoza-run-1-1", "gyoza-run-1-2"]


async def test_a_server_with_changes_is_not_asked_for_each_run(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    server.changes = [{"states": {}, "cursor": "1"}]
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            server.changes += [
                {"states": {"unknown": "CANCELLED", "run-1": "RUNNING"}, "cursor": "2"},
                {"states": {"run-1": "CANCELLED"}, "cursor": "3"},
            ]
            await end_of(worker, "run-1")
    assert "GET /runs/run-1" not in server.requests


async def test_changes_that_fail_are_asked_for_again(
    server: SmallServer, start_worker: StartWorker
) -> None:
    server.changes = [{"states": {}, "cursor": "1"}]
    server.refuse("GET", "/workers/w1/changes", 500, "Broken.", times=1)
    with trio.fail_after(200):
        async with start_worker():
            await server.wait_until(lambda: server.requests.count("GET /workers/w1/changes") > 1)


async def test_a_state_that_cannot_be_read_is_asked_for_again(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.submit("run-1", "sleeper")
    server.refuse("GET", "/runs/run-1", 403, "Not now.", times=1)
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            server.cancel("run-1")
            await end_of(worker, "run-1")


async def test_two_workers_of_one_name_do_not_start_on_one_machine(
    engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    async with open_worker(settings, context=WorkerContext(), engine=engine):
        with pytest.raises(SettingsError, match="running on this machine already"):
            async with open_worker(settings, context=WorkerContext(), engine=engine):
                raise AssertionError


async def test_a_work_directory_that_cannot_be_made_is_one_sentence(
    engine: FakeContainerEngine, settings: WorkerSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="GYOZA_WORK_DIR"):
        async with open_worker(
            replace(settings, work_dir=tmp_path / "file"), context=WorkerContext(), engine=engine
        ):
            raise AssertionError


async def test_resources_are_detected_if_no_context_is_given(
    engine: FakeContainerEngine, settings: WorkerSettings
) -> None:
    async with open_worker(settings, engine=engine) as worker:
        assert worker.context.resources.cpu_cores >= 1


async def test_backoff_doubles_up_to_a_cap_and_begins_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backoff = Backoff()

    async def waited() -> float:
        begun = trio.current_time()
        await backoff.wait(trio.Event())
        return trio.current_time() - begun

    bounds = [0.5, 1, 2, 4, 8, 16, 30, 30]
    for bound in bounds:
        assert bound / 2 <= await waited() <= bound
    backoff.reset()
    assert await waited() <= 0.5


def test_settings_say_in_one_sentence_what_is_wrong() -> None:
    cases: list[tuple[Callable[[], WorkerSettings], str]] = [
        (lambda: WorkerSettings(worker_id="../w"), "not a valid worker id"),
        (lambda: WorkerSettings(max_concurrency=0), "max_concurrency must be at least 1"),
        (lambda: WorkerSettings(grace_s=-1), "grace must be at least 0, not -1"),
        (lambda: WorkerSettings(drain_timeout_s=math.nan), "drain_timeout must be at least 0"),
        (lambda: WorkerSettings(heartbeat_s=0), "heartbeat must be at least 0.01"),
        (lambda: WorkerSettings(max_runs=0), "max_runs must be at least 1"),
        (lambda: WorkerSettings(idle_exit_s=0), "idle_exit must be at least 0.01"),
        (lambda: WorkerSettings(min_free_mb=-1), "min_free_mb must be at least 0"),
        (lambda: WorkerSettings(fence_after_s=9), "fence_after must be at least two heartbeats"),
        (lambda: WorkerSettings.from_env({"GYOZA_PIDS_LIMIT": "0"}), "pids_limit must be at"),
        (lambda: WorkerSettings.from_env({"GYOZA_MAX_RAM_MB": "1"}), "max_ram_mb must be at"),
        (lambda: WorkerSettings.from_env({"GYOZA_NETWORK": "container:x"}), "network cannot be"),
        (lambda: WorkerSettings.from_env({"GYOZA_USER": "root; id"}), "user cannot be"),
        (lambda: WorkerSettings.from_env({"GYOZA_READ_ONLY": "maybe"}), "must be true or false"),
        (lambda: WorkerSettings.from_env({"GYOZA_PULL_POLICY": "often"}), "always, missing"),
        (lambda: WorkerSettings.from_env({"GYOZA_MAX_CONCURRENCY": "x"}), "a whole number"),
        (lambda: WorkerSettings.from_env({"GYOZA_GRACE": "long"}), "must be a number"),
    ]
    for make, sentence in cases:
        with pytest.raises(SettingsError, match=sentence):
            make()


def test_settings_come_from_the_environment_and_flags_win() -> None:
    environ = {
        "GYOZA_WORKER_ID": "w7",
        "GYOZA_WORKER_TAGS": "gpu, fast,",
        "GYOZA_WORK_DIR": "/work-dir",
        "GYOZA_HEARTBEAT": "2.5",
        "GYOZA_FENCE_AFTER": "40",
        "GYOZA_DRAIN_TIMEOUT": "0",
        "GYOZA_MAX_RUNS": "3",
        "GYOZA_IDLE_EXIT": "60",
        "GYOZA_MIN_FREE_MB": "0",
        "GYOZA_READ_ONLY": "true",
        "GYOZA_ALLOW_IMAGES": "python, me/**",
        "GYOZA_MAX_CPU": "1.5",
    }
    settings = WorkerSettings.from_env(environ, worker_id="w8", grace_s=None)
    assert settings.worker_id == "w8"
    assert settings.tags == ["gpu", "fast"]
    assert settings.work_dir == Path("/work-dir")
    assert (settings.heartbeat_s, settings.fence_after_s) == (2.5, 40)
    assert (settings.max_runs, settings.idle_exit_s, settings.min_free_mb) == (3, 60, 0)
    assert settings.drain_timeout_s == 0
    assert settings.grace_s == 10
    policy = ContainerPolicy(read_only=True, allow_images=["python", "me/**"], max_cpu=1.5)
    assert settings.policy == policy


async def test_a_worker_says_so_if_the_engine_cannot_limit_containers(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.unlimited = ("memory",)
    with trio.fail_after(200):
        async with start_worker():
            pass
    assert "cannot limit memory of containers" in caplog.text
