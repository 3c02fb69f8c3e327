"""Pipelines: steps in order, nesting, plain functions, what must always run, the blocking entry."""

import threading
from functools import partial

import pytest
import trio
import trio.testing

from gyoza.testing import FakeContainerEngine
from gyoza.worker.execution_pipeline import (
    ExecutionContext,
    Pipeline,
    PrepareInputs,
    RunContainer,
    Step,
    start_oprun,
)
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.types.step import always_run
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of


def note(word: str) -> Step:
    async def step(ctx: ExecutionContext) -> ExecutionContext:
        ctx.extras.setdefault("notes", []).append(word)
        return ctx

    return step


async def fail(ctx: ExecutionContext) -> ExecutionContext:
    raise ZeroDivisionError("no")


async def test_steps_run_in_order_and_pipelines_nest() -> None:
    inner = Pipeline([note("b"), note("c")])
    ctx = await Pipeline([note("a"), inner, note("d")])(ExecutionContext())
    assert ctx.extras["notes"] == ["a", "b", "c", "d"]


async def test_a_step_may_return_another_context() -> None:
    async def replace(ctx: ExecutionContext) -> ExecutionContext:
        return ExecutionContext(image="other")

    assert (await Pipeline([replace])(ExecutionContext())).image == "other"


async def test_a_plain_function_is_a_step_and_runs_in_a_thread() -> None:
    threads: list[threading.Thread] = []

    def plain(ctx: ExecutionContext) -> ExecutionContext:
        threads.append(threading.current_thread())
        return ctx

    ctx = await Pipeline([plain, note("next")])(ExecutionContext())
    assert threads[0] is not threading.main_thread()
    assert ctx.extras["notes"] == ["next"]


async def test_a_partial_of_an_async_function_is_a_step() -> None:
    async def add(word: str, ctx: ExecutionContext) -> ExecutionContext:
        ctx.extras["word"] = word
        return ctx

    ctx = await Pipeline([partial(add, "hello")])(ExecutionContext())
    assert ctx.extras["word"] == "hello"


async def test_after_a_failure_only_what_must_always_run_runs() -> None:
    ctx = ExecutionContext()
    steps = [note("a"), fail, note("b"), always_run(note("c"))]
    with pytest.raises(ZeroDivisionError):
        await Pipeline(steps)(ctx)
    assert ctx.extras["notes"] == ["a", "c"]


async def test_after_a_cancel_what_must_always_run_may_still_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @always_run
    async def slow_cleanup(ctx: ExecutionContext) -> ExecutionContext:
        await trio.sleep(5)
        ctx.extras["cleaned"] = True
        return ctx

    async def wait_for_ever(ctx: ExecutionContext) -> ExecutionContext:
        await trio.sleep_forever()
        return ctx

    ctx = ExecutionContext()
    with trio.move_on_after(1) as scope:
        await Pipeline([wait_for_ever, note("never"), slow_cleanup])(ctx)
    assert scope.cancelled_caught
    assert ctx.extras == {"cleaned": True}


async def test_a_cleanup_that_hangs_is_given_up_with_a_word(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    @always_run
    async def hang(ctx: ExecutionContext) -> ExecutionContext:
        await trio.sleep_forever()
        return ctx

    await Pipeline([hang, note("next")])(ExecutionContext())
    assert "is given up" in caplog.text


async def test_run_inside_trio_says_what_to_do_instead() -> None:
    with pytest.raises(RuntimeError, match="await pipeline"):
        Pipeline([]).run()


async def test_a_built_in_step_alone_says_what_it_needs() -> None:
    for step in (PrepareInputs(), start_oprun, RunContainer()):
        with pytest.raises(RuntimeError, match="needs a worker around it"):
            await step(ExecutionContext())


async def test_a_failing_step_of_ones_own_marks_the_run_failed_once(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    server.submit("run-1", "any")
    with trio.fail_after(200):
        async with start_worker(pipeline=Pipeline([start_oprun, Pipeline([fail])])) as worker:
            failed = await server.wait_for_event("FAILED", "run-1")
            await end_of(worker, "run-1")
    assert [e["type"] for e in server.events] == ["STARTED", "FAILED"]
    assert failed["payload"]["error_message"] == "ZeroDivisionError: no"


async def test_an_error_outside_every_step_costs_its_run_alone(
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def break_the_reporter(ctx: ExecutionContext) -> ExecutionContext:
        def broken(ctx: ExecutionContext) -> None:
            raise ZeroDivisionError

        scope_of(ctx).tasks.start_soon(trio.to_thread.run_sync, broken, ctx)
        await trio.sleep_forever()
        return ctx

    server.submit("run-1", "any")
    with trio.fail_after(200):
        async with start_worker(pipeline=Pipeline([break_the_reporter])) as worker:
            await server.wait_until(lambda: server.runs["run-1"]["state"] == "ASSIGNED")
            await trio.testing.wait_all_tasks_blocked()
            await end_of(worker, "run-1")
            assert worker.active.free_slots == 4
    assert "nobody foresaw" in caplog.text
