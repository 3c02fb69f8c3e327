"""The outermost layer: what a person sees who starts a worker or runs a pipeline by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from gyoza.worker import start
from gyoza.worker.errors import EngineUnavailable, SettingsError
from gyoza.worker.execution_pipeline import ExecutionContext, Pipeline, execution_pipeline
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.execution_pipeline.steps.cleanup_op_dir import cleanup_op_dir
from gyoza.worker.runner import main
from gyoza.worker.settings import WorkerSettings


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")


@pytest.mark.usefixtures("no_docker")
def test_without_an_engine_a_worker_says_so_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYOZA_API_KEY", "key")
    with pytest.raises(EngineUnavailable, match=r"no-engine\.sock"):
        start()


def test_a_wrong_setting_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYOZA_MAX_CONCURRENCY", "many")
    with pytest.raises(SettingsError, match="GYOZA_MAX_CONCURRENCY must be a whole number"):
        start()


def test_an_error_that_nobody_foresaw_keeps_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: WorkerSettings, *, on_end: Callable[[], None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ZeroDivisionError

    monkeypatch.setattr(main, "work_until_told", broken)
    with pytest.raises(ExceptionGroup) as caught:
        main.run(WorkerSettings())
    assert caught.group_contains(ZeroDivisionError)


def test_of_a_group_of_errors_the_known_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(_: WorkerSettings, *, on_end: Callable[[], None]) -> None:
        async with trio.open_nursery() as services, trio.open_nursery():
            services.start_soon(trio.sleep_forever)
            raise SettingsError("Wrong key.")

    monkeypatch.setattr(main, "work_until_told", refused)
    with pytest.raises(SettingsError, match=r"Wrong key\."):
        main.run(WorkerSettings())


@pytest.mark.usefixtures("no_docker")
def test_the_script_entry_hands_out_the_bare_error() -> None:
    with pytest.raises(EngineUnavailable, match=r"no-engine\.sock"):
        execution_pipeline.run(ExecutionContext(image="any"))


@pytest.mark.usefixtures("no_docker")
def test_a_script_is_not_taken_for_what_this_machines_worker_has_left() -> None:
    def look(ctx: ExecutionContext) -> ExecutionContext:
        ctx.outputs["labels"] = scope_of(ctx).identity.labels
        return ctx

    labels = Pipeline([look]).run(ExecutionContext(oprun_id="run_abc123")).outputs["labels"]
    assert labels["gyoza.run_id"] == "run_abc123"
    assert labels["gyoza.worker_id"] != WorkerSettings.from_env().worker_id


@pytest.mark.usefixtures("no_docker")
def test_a_pipeline_of_ones_own_steps_runs_without_engine_or_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def shout(ctx: ExecutionContext) -> ExecutionContext:
        ctx.outputs["said"] = "hello"
        return ctx

    assert Pipeline([shout, cleanup_op_dir]).run().outputs == {"said": "hello"}
    assert not caplog.records
