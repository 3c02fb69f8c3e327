"""A run that fails says why in one sentence, with its last log lines."""

from typing import Any

import pytest
import trio

from gyoza.testing import FakeContainer, FakeContainerEngine, Program
from gyoza.worker.containers.engine import ContainerExit
from gyoza.worker.errors import ContainerNotFound, EngineError, EngineUnavailable
from gyoza.worker.execution_pipeline.steps import prepare_inputs
from gyoza.worker.runner.active_runs import CancelReason
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever


async def fail_with_words(container: FakeContainer) -> int:
    await container.stdout(b"reading\n")
    await container.stderr(b"it broke\n")
    return 3


async def run_out_of_memory(container: FakeContainer) -> int:
    container.oom_killed = True
    return 137


async def run_out_of_memory_told_late(container: FakeContainer) -> int:
    container.oom_told_late = True
    return 137


async def lose_a_child(container: FakeContainer) -> int:
    container.oom_killed = True
    return 1


async def write_nonsense(container: FakeContainer) -> int:
    container.path(container.env["GYOZA_OUTPUT_PATH"]).write_text("nonsense")
    return 0


async def failure_of(
    server: SmallServer, start_worker: StartWorker, image: str, **fields: Any
) -> dict[str, Any]:
    server.submit("run-1", image, **fields)
    with trio.fail_after(200):
        async with start_worker() as worker:
            failed = await server.wait_for_event("FAILED", "run-1")
            await end_of(worker, "run-1")
    assert failed["msg"] == failed["payload"]["error_message"]
    assert not list(worker.settings.work_dir.iterdir())
    return failed["payload"]


async def test_an_exit_code_is_told_with_the_end_of_the_log(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("broken", fail_with_words)
    failure = await failure_of(server, start_worker, "broken")
    assert failure == {
        "reason": "EXIT_CODE",
        "error_message": "The op exited with code 3.",
        "exit_code": 3,
        "log_tail": "reading\nit broke",
    }


@pytest.mark.parametrize("program", [run_out_of_memory, run_out_of_memory_told_late])
@pytest.mark.parametrize(
    ("constraints", "sentence"),
    [
        ({"ram_mb": 64}, "The op was killed for using more memory than its limit of 64 MB."),
        ({}, "The op was killed for using more memory than what the machine had."),
    ],
)
async def test_out_of_memory_is_told_apart(
    program: Program,
    constraints: dict[str, int],
    sentence: str,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    engine.add_image("greedy", program)
    failure = await failure_of(server, start_worker, "greedy", constraints=constraints)
    assert (failure["reason"], failure["error_message"]) == ("OUT_OF_MEMORY", sentence)


async def test_a_child_killed_for_memory_is_mentioned(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("parent", lose_a_child)
    failure = await failure_of(server, start_worker, "parent")
    assert failure["reason"] == "EXIT_CODE"
    assert failure["error_message"] == (
        "The op exited with code 1. Before that one of its processes was killed for using more "
        "memory than what the machine had."
    )


async def test_a_run_past_its_time_limit_is_stopped_and_says_so(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    failure = await failure_of(server, start_worker, "sleeper", timeout_s=0.05)
    assert failure["reason"] == "TIMED_OUT"
    assert failure["error_message"] == "The op ran longer than its limit of 0.05 s."
    assert not engine.containers


async def test_an_image_that_cannot_be_pulled_fails_the_run(
    server: SmallServer, start_worker: StartWorker
) -> None:
    failure = await failure_of(server, start_worker, "no-such-image")
    assert failure["reason"] == "IMAGE_PULL"
    assert "no-such-image" in failure["error_message"]


async def test_outputs_that_are_no_plain_data_fail_the_run(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("liar", write_nonsense)
    failure = await failure_of(server, start_worker, "liar")
    assert failure["reason"] == "OUTPUT_INVALID"


@pytest.mark.row("step-raises")
@pytest.mark.parametrize("method", ["create", "start", "wait", "attach"])
async def test_an_engine_that_refuses_fails_the_run_and_nothing_is_left(
    method: str, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    engine.failures[method] = EngineError("The engine says no.")
    failure = await failure_of(server, start_worker, "quick")
    assert (failure["reason"], failure["error_message"]) == ("ENGINE", "The engine says no.")
    assert not engine.containers


@pytest.mark.row("container-gone")
async def test_a_run_whose_container_somebody_else_removes_is_given_back(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    engine.failures["wait"] = engine.failures["ask_to_stop"] = ContainerNotFound("It is gone.")
    server.submit("run-1", "quick")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            await end_of(worker, "run-1")
    assert server.told == ["STARTED"]
    assert "POST /runs/run-1/release" in server.requests


async def test_what_the_engine_says_of_a_container_is_told(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def wait(container_id: str) -> ContainerExit:
        return ContainerExit(127, error="no such program")

    monkeypatch.setattr(engine, "wait", wait)
    engine.add_image("quick")
    failure = await failure_of(server, start_worker, "quick")
    assert failure["reason"] == "ENGINE"
    assert failure["error_message"].endswith("no such program")


async def test_a_run_whose_directory_cannot_be_made_fails(
    server: SmallServer, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(prepare_inputs, "make_op_dir", refuse)
    failure = await failure_of(server, start_worker, "quick")
    assert failure["error_message"] == "PermissionError: not here"


async def test_more_gpu_memory_than_there_is_fails_the_run(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    failure = await failure_of(server, start_worker, "quick", constraints={"vram_mb": 1})
    assert failure["reason"] == "POLICY"


@pytest.mark.row("step-raises")
async def test_an_error_nobody_foresaw_is_reported_as_internal(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def surprise(*_: Any) -> str:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(engine, "create", surprise)
    engine.add_image("quick")
    failure = await failure_of(server, start_worker, "quick")
    assert failure["reason"] == "INTERNAL"
    assert failure["error_message"] == "ZeroDivisionError: surprise"


async def test_an_error_while_a_cancelled_run_is_cleaned_up_is_no_failure(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    engine.failures["remove"] = EngineUnavailable("No engine.")
    server.submit("run-1", "sleeper")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", "run-1")
            worker.active.trip_all(CancelReason.LEASE_LOST)
            await end_of(worker, "run-1")
    assert [e["type"] for e in server.events] == ["STARTED"]
