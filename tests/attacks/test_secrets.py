"""An op, or who submits one, tries to bring a secret to light: a run's own, or the worker's."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio

from gyoza.worker.errors import SettingsError
from gyoza.worker.execution_pipeline import ExecutionContext, Pipeline, execution_pipeline
from gyoza.worker.execution_pipeline.run_scope import scope_of
from gyoza.worker.runner.supervisor import run_worker
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import Resources, WorkerContext
from tests.images import busybox_image
from tests.support.small_server import SmallServer, open_small_server

__all__ = ["busybox_image"]

TOKEN = 'tok-"31415\\926535'
KEY = "\n".join(["-----BEGIN KEY-----", *("MIIEvQIBADAN" * 4 + str(n) for n in range(4))]) + "\n"

TELLS_ALL = r"""
echo "token $TOKEN, key $KEY"
env >&2
printf %s "${TOKEN%?????}"; sleep 0.2; printf '%s\n' "${TOKEN#????????????}"
head -c 70000 /dev/zero | tr '\0' x; echo "$TOKEN"
json=$(printf %s "$TOKEN" | sed 's/[\"\\]/\\&/g')
printf '%s\n' "{\"token\": \"$json\"}"
echo '::gyoza::{"type": "INFO", "msg": "t '"$json"'", "payload": {"'"$json"'": ["'"$json"'"]}}'
echo '::gyoza::{"type": "ERROR", "msg": "t '"$json"'" malformed'
cat /gyoza/inputs.json 2>/dev/null
printf %s "$TOKEN" >&2
exit 3
"""


@pytest.fixture
async def server() -> AsyncGenerator[SmallServer]:
    async with open_small_server() as server:
        server.keeps_logs = True
        yield server


@asynccontextmanager
async def open_worker(
    server: SmallServer,
    work_dir: Path,
    pipeline: Pipeline = execution_pipeline,
    **environ: str,
) -> AsyncGenerator[None]:
    """Run a worker on the real engine for as long as the block lasts, with these variables."""
    settings = WorkerSettings.from_env(
        environ,
        server_url=server.url,
        api_key="key",
        work_dir=work_dir,
        worker_id=f"secrets-{uuid4().hex}",
        pull_policy="never",
    )
    context = WorkerContext(resources=Resources(cpu_cores=2, ram_mb=1024, gpus=[]))
    async with trio.open_nursery() as nursery:
        start = partial(run_worker, settings, context=context, pipeline=pipeline)
        worker: Worker = await nursery.start(start)
        yield
        worker.drain()


def everything_told(server: SmallServer, run_id: str) -> str:
    """Return all that the server was told of a run."""
    return server.logs.get(run_id, "") + json.dumps(server.events, ensure_ascii=False)


def assert_hidden(secret: str, text: str) -> None:
    """See that no part of the secret of some length is in the text, in clear or as JSON."""
    for form in (secret, json.dumps(secret)[1:-1]):
        for at in range(len(form) - 7):
            assert form[at : at + 8] not in text


@pytest.mark.docker
async def test_an_op_that_prints_its_secrets_in_every_way(
    server: SmallServer, tmp_path: Path, busybox_image: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[str] = []

    async def look(ctx: ExecutionContext) -> ExecutionContext:
        record = scope_of(ctx).record
        kept.append((record.directory / "log").read_text())
        _, *facts = (record.directory / "journal").read_text().splitlines()  # without the run
        kept.extend([*facts, ctx.logs])
        return ctx

    steps = list(execution_pipeline.steps)
    steps.insert(-1, look)
    server.submit(
        "run-1",
        busybox_image,
        command=["sh", "-c", TELLS_ALL],
        env_vars={"TOKEN": TOKEN, "KEY": KEY, "PIN": "31", "OPEN": "in the open"},
        secrets=["TOKEN", "KEY", "PIN", "UNKNOWN"],
    )
    with caplog.at_level("DEBUG"), trio.fail_after(200):
        async with open_worker(server, tmp_path, Pipeline(steps)):
            failed = await server.wait_for_event("FAILED", "run-1")
    log = server.logs["run-1"]
    assert "token ***, key ***\n" in log
    assert "TOKEN=***\n" in log
    assert "OPEN=in the open\n" in log
    assert '{"token": "***"}\n' in log
    assert '::gyoza::{"type": "ERROR", "msg": "t ***" malformed\n' in log
    assert failed["payload"]["log_tail"].count("***") >= 3
    [info] = [event for event in server.events if event["type"] == "INFO"]
    assert (info["msg"], info["payload"]) == ("t ***", {"***": ["***"]})
    for text in (everything_told(server, "run-1"), caplog.text, *kept):
        assert_hidden(TOKEN, text)
        assert_hidden(KEY.splitlines()[1], text)
    assert caplog.text.count("shorter than 8 characters: PIN") == 1


@pytest.mark.docker
async def test_an_op_that_looks_for_the_variables_of_its_worker(
    server: SmallServer, tmp_path: Path, busybox_image: str
) -> None:
    server.submit(
        "run-1",
        busybox_image,
        command=["env"],
        env_vars={"PROXY": "the run's", "OWN": "of the run", "GYOZA_RUN_ID": "another's"},
    )
    with trio.fail_after(200):
        async with open_worker(
            server,
            tmp_path,
            GYOZA_PASS_ENV="PROXY, DEPOT_KEY, MISSING",
            GYOZA_SECRET_ENV="DEPOT_KEY,OWN",
            GYOZA_GRACE="1",
            PROXY="the worker's",
            DEPOT_KEY="sesame-open",
            PRIVATE="for nobody",
        ):
            await server.wait_for_event("COMPLETED", "run-1")
    variables = dict(line.split("=", 1) for line in server.logs["run-1"].splitlines())
    assert variables["PROXY"] == "the worker's"
    assert variables["DEPOT_KEY"] == variables["OWN"] == "***"
    assert variables["GYOZA_RUN_ID"] == "run-1"
    assert not {"MISSING", "PRIVATE", "GYOZA_GRACE", "GYOZA_API_KEY"} & variables.keys()


@pytest.mark.docker
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"command": ["no-such-program"]}, "command was not found"),
        ({"command": ["/dev/null"]}, "could not be executed"),
        ({"env_vars": {"": "sesame-open"}, "secrets": [""]}, "env_vars is not what"),
        ({"env_vars": {"A=": "sesame-open"}, "secrets": ["A="]}, "env_vars is not what"),
        ({"env_vars": {"A": "sesame-open\0"}, "secrets": ["A"]}, "env_vars is not what"),
    ],
    ids=["no-program", "no-executable", "no-name", "odd-name", "nul"],
)
async def test_a_run_whose_refusal_by_the_engine_might_show_its_variables(
    server: SmallServer,
    tmp_path: Path,
    busybox_image: str,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
    sentence: str,
) -> None:
    secret = {"env_vars": {"A": "sesame-open"}, "secrets": ["A"], "command": ["true"]}
    server.submit("run-1", busybox_image, **(secret | fields))
    with caplog.at_level("DEBUG"), trio.fail_after(200):
        async with open_worker(server, tmp_path):
            failed = await server.wait_for_event("FAILED", "run-1")
    assert sentence in failed["payload"]["error_message"]
    assert_hidden("sesame-open", everything_told(server, "run-1") + caplog.text)


@pytest.mark.parametrize("name", ["GYOZA_API_KEY", "GYOZA_SERVER_URL"])
def test_settings_that_would_pass_the_workers_own_key_to_containers(name: str) -> None:
    environ = {"GYOZA_PASS_ENV": f"PATH,{name}", name: "sesame-open", "PATH": "/bin"}
    with pytest.raises(SettingsError, match=f"{name} is gyoza's own") as caught:
        WorkerSettings.from_env(environ)
    assert "sesame" not in str(caught.value)


def test_values_of_passed_variables_that_somebody_prints_with_the_settings() -> None:
    settings = WorkerSettings.from_env({"A": "sesame-open"}, pass_env=["A"], worker_id="w")
    assert settings.passed_env == {"A": "sesame-open"}
    assert "sesame" not in repr(settings)
