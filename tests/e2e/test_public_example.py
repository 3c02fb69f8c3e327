"""The documentation's example: a pipeline run by hand, without a worker."""

import logging
import sys
from pathlib import Path

import pytest
import trio

from gyoza.client import AsyncGyozaClient
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.execution_pipeline import ExecutionContext, execution_pipeline

pytestmark = pytest.mark.docker

SUM = 'echo adding; echo "{\\"sum\\": 3}" > "$GYOZA_OUTPUT_PATH"'
SCRIPT = """
from gyoza.worker.execution_pipeline import execution_pipeline, ExecutionContext

ctx = ExecutionContext(
    oprun_id="run_abc123",
    image="{image}",
    inputs={{"param": "value"}},
)
ctx.extras["command"] = ["sh", "-c", 'grep -q value "$GYOZA_INPUT_JSON_PATH" && exit 4']
result = execution_pipeline.run(ctx)
print(result.exit_code)
"""


async def nothing_is_left() -> bool:
    async with open_docker_engine() as engine:
        return not await engine.list({"gyoza.run_id": "run_abc123"})


async def test_the_example_works_from_a_plain_script_without_a_server(
    busybox_image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", "http://127.0.0.1:9")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(image=busybox_image))
    with trio.fail_after(200):
        done = await trio.run_process(
            [sys.executable, str(script)], capture_stdout=True, capture_stderr=True
        )
    assert done.stdout == b"4\n"
    assert b"Traceback" not in done.stderr
    assert await nothing_is_left()


async def test_a_run_that_the_server_knows_is_reported_there(
    busybox_image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = ServerSettings(port=0, database_url=f"sqlite:///{tmp_path}/db", api_key="key")
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve, settings)
            monkeypatch.setenv("GYOZA_SERVER_URL", url)
            monkeypatch.setenv("GYOZA_API_KEY", "key")
            async with AsyncGyozaClient(url, "key") as client:
                run = await client.create_run(busybox_image, {})
                ctx = ExecutionContext(oprun_id=run["id"], image=busybox_image)
                ctx.extras["command"] = ["sh", "-c", SUM]
                result = await trio.to_thread.run_sync(execution_pipeline.run, ctx)
                run = await client.get_run(run["id"])
            nursery.cancel_scope.cancel()
    assert (result.exit_code, result.outputs, result.logs) == (0, {"sum": 3}, "adding\n")
    assert (run["state"], run["outputs"]) == ("COMPLETED", {"sum": 3})


async def test_a_run_that_no_server_knows_still_gives_its_result(
    busybox_image: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", "http://127.0.0.1:9")
    ctx = ExecutionContext(oprun_id="run_abc123", image=busybox_image)
    ctx.extras["command"] = ["sh", "-c", SUM]
    with trio.fail_after(200), caplog.at_level(logging.WARNING):
        result = await trio.to_thread.run_sync(execution_pipeline.run, ctx)
    assert (result.exit_code, result.outputs) == (0, {"sum": 3})
    assert caplog.text.count("goes on unreported") == 1
    assert await nothing_is_left()
