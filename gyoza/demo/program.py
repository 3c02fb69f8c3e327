"""The demo as one Trio program; what is further in ends first.

engine     Docker, as the `docker` command finds it
  folder     a temporary one: database, op directories, log
    images     of this demo alone
      services   a server on a free port
        work       a worker; drained when all runs have ended, stopped by a signal
"""

import logging
import secrets
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

import trio
from rich.console import Console

import gyoza.demo
from gyoza.client import AsyncGyozaClient
from gyoza.demo.board import Board
from gyoza.demo.images import build_busybox_image, build_python_image
from gyoza.demo.plan import CANCEL_AT, Planned, plan_runs
from gyoza.demo.results import Cancelled, Result, find_problems, tell, tell_cancelled
from gyoza.models import OpRun, OpRunState
from gyoza.server import ServerSettings, serve
from gyoza.worker.containers.docker_engine import DockerEngine, open_docker_engine
from gyoza.worker.containers.labels import RUN_ID, of_worker
from gyoza.worker.runner.supervisor import run_worker
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings

SLOTS = 4
LIMIT_S = 180.0
CLEAN_UP_S = 30.0
WAIT_S = 20.0


@dataclass(frozen=True)
class Stage:
    """What the parts of one demo share; its name is the worker's id and the feed's topic."""

    name: str
    console: Console
    engine: DockerEngine
    folder: Path

    @property
    def python(self) -> str:
        """The image with Python."""
        return f"gyoza-{self.name}-python:latest"

    @property
    def shell(self) -> str:
        """The image with a shell."""
        return f"gyoza-{self.name}-shell:latest"


async def demonstrate(console: Console) -> list[str]:
    """Run the demo; whatever happens, nothing of it is left behind.

    Returns:
        A sentence for everything that was not as it should be.

    Raises:
        EngineUnavailable: If Docker does not answer.
        ImageBuildError: If something for the images is missing here.
    """
    async with open_docker_engine(concurrency=SLOTS) as engine:
        version = (await engine.info()).version
        with tempfile.TemporaryDirectory(prefix="gyoza-demo-") as folder:
            stage = Stage(f"demo-{secrets.token_hex(4)}", console, engine, Path(folder))
            _log_to(stage.folder / "log")
            console.print(f"Docker Engine {version}: building two images, without a registry")
            async with _images(stage):
                problems = await _with_server(stage)
            if problems:
                problems.append(f"The log of server and worker ends:\n{_end_of_log(stage)}")
        problems += await _find_leftovers(stage)
        if not problems:
            console.print(
                "\nAll runs ended as planned, with the outputs computed here without containers."
                "\nNothing is left behind."
            )
        return problems


def _log_to(file: Path) -> None:
    """Keep the terminal for the table: what server and worker log goes into a file."""
    logging.basicConfig(filename=file, level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _end_of_log(stage: Stage) -> str:
    return "\n".join((stage.folder / "log").read_text(encoding="utf-8").splitlines()[-20:])


@asynccontextmanager
async def _images(stage: Stage) -> AsyncGenerator[None]:
    demo = files(gyoza.demo)
    try:
        ops = {"/ops.py": demo.joinpath("ops.py").read_bytes()}
        await build_python_image(stage.engine, stage.python, files=ops)
        op = {"/op.sh": demo.joinpath("op.sh").read_bytes()}
        await build_busybox_image(stage.engine, stage.shell, files=op)
        yield
    finally:
        with trio.move_on_after(CLEAN_UP_S, shield=True):
            await stage.engine.remove_image(stage.python)
            await stage.engine.remove_image(stage.shell)


async def _with_server(stage: Stage) -> list[str]:
    key = secrets.token_urlsafe()
    database = f"sqlite:///{stage.folder / 'gyoza.sqlite3'}"
    settings = ServerSettings(port=0, database_url=database, api_key=key)
    # Shielded, as a worker that is interrupted gives its runs back; ended below in any case.
    life = trio.CancelScope(shield=True)
    async with trio.open_nursery() as services:
        try:
            url = await services.start(_serve, settings, life)
            async with AsyncGyozaClient(url, key) as client:
                with trio.move_on_after(LIMIT_S):
                    return await _main_job(stage, client, url, key)
        finally:
            life.cancel()
    return [f"The runs had not ended after {LIMIT_S:g} s."]


async def _serve(
    settings: ServerSettings, life: trio.CancelScope, *, task_status: trio.TaskStatus[str]
) -> None:
    with life:
        await serve(settings, task_status=task_status)


async def _main_job(stage: Stage, client: AsyncGyozaClient, url: str, key: str) -> list[str]:
    """Queue all runs, then start the worker: so it takes them by priority."""
    board = Board(stage.console)
    planned = await trio.to_thread.run_sync(plan_runs, stage.python, stage.shell)
    made = [(one, await _create(client, one, stage.name)) for one in planned]
    for one, run in made:
        board.add(one.name, run)
    stage.console.print(
        f"{len(made)} runs wait at {url}; worker {stage.name} takes {SLOTS} at once.\n",
        soft_wrap=True,
    )
    settings = WorkerSettings(
        server_url=url,
        api_key=key,
        worker_id=stage.name,
        work_dir=stage.folder / "work",
        max_concurrency=SLOTS,
        pull_policy="never",
    )
    to_cancel = next(run for one, run in made if one.ends is OpRunState.CANCELLED)
    async with trio.open_nursery() as work:
        worker = await work.start(partial(run_worker, settings, engine=stage.engine))
        async with board.shown(), trio.open_nursery() as watching:
            watching.start_soon(board.follow, client, stage.name)
            cancelled = await _cancel_midway(stage, client, worker, to_cancel)
        worker.drain()
    return await _conclude(stage, client, made, cancelled)


async def _create(client: AsyncGyozaClient, planned: Planned, topic: str) -> OpRun:
    created = await client.create_run(
        planned.image,
        planned.inputs,
        command=planned.command,
        priority=planned.priority,
        event_delivery={"topic": topic},
        timeout_s=60.0,
    )
    return OpRun.from_dict(created)


async def _cancel_midway(
    stage: Stage, client: AsyncGyozaClient, worker: Worker, run: OpRun
) -> Cancelled | None:
    """Cancel a run once its progress shows that it is really under way; None if it ends before."""
    last = -1
    while run.progress < CANCEL_AT:
        if run.state.terminal:
            return None
        last = run.events[-1].id if run.events else last
        run = OpRun.from_dict(await client.get_run(run.id, after_event=last, wait_s=WAIT_S))
    asked_at = trio.current_time()
    run = OpRun.from_dict(await client.cancel_run(run.id))
    await worker.active.wait_until_gone(run.id)
    gone_s = trio.current_time() - asked_at
    gone = not await stage.engine.list({RUN_ID: run.id})
    return Cancelled(run.progress, (run.execution_summary.duration_ms or 0) / 1000, gone_s, gone)


async def _conclude(
    stage: Stage,
    client: AsyncGyozaClient,
    made: list[tuple[Planned, OpRun]],
    cancelled: Cancelled | None,
) -> list[str]:
    problems: list[str] = []
    results: list[Result] = []
    for planned, run in made:
        ended = OpRun.from_dict(await client.get_run(run.id))
        results.append(Result(planned, ended, await client.get_logs(run.id)))
        problems += find_problems(results[-1])
    tell(stage.console, results)
    if cancelled is not None:
        problems += tell_cancelled(stage.console, cancelled)
    if left := await stage.engine.list(of_worker(stage.name)):
        problems.append(f"{len(left)} containers are left behind.")
    return problems


async def _find_leftovers(stage: Stage) -> list[str]:
    left = [name for name in (stage.python, stage.shell) if await stage.engine.find_image(name)]
    if await trio.Path(stage.folder).exists():
        left.append(str(stage.folder))
    return [f"{name} is left behind." for name in left]
