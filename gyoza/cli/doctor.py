"""`gyoza doctor`: whether this machine can do work, and what to do if it cannot."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gyoza.cli.errors import ExitCode, explain
from gyoza.cli.flags import takes
from gyoza.cli.output import can_show, console, print_json
from gyoza.cli.session import Json, Server

if TYPE_CHECKING:
    from gyoza.worker.containers.engine import EngineInfo
    from gyoza.worker.policy import ContainerPolicy

GB = 1024**3
NEEDED_GB, WANTED_GB = 1.0, 5.0
PATIENCE_S = 5.0


class Verdict(StrEnum):
    """How a check ended; only FAIL prevents work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


MARKS = {Verdict.OK: "✓", Verdict.WARN: "!", Verdict.FAIL: "✗"}
ASCII_MARKS = {Verdict.OK: "ok    ", Verdict.WARN: "!     ", Verdict.FAIL: "FAILED"}
STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


@dataclass
class Check:
    """One line: what was looked at, how it is, and what to do unless it is well."""

    name: str
    verdict: Verdict
    text: str


@takes(Server)
def doctor(server: Server, as_json: Json = False) -> None:
    """Check Docker, server, key, disk and GPU, and say what to do.

    Exits with 1 if something is missing that runs need; they can do without a GPU.
    """
    checks = [
        *_docker(),
        *_server_and_key(server),
        _disk(),
        _gpu(),
    ]
    well = all(check.verdict is not Verdict.FAIL for check in checks)
    if as_json:
        print_json({"ok": well, "checks": [asdict(check) for check in checks]})
    else:
        _print(checks)
    raise typer.Exit(ExitCode.OK if well else ExitCode.FAILED)


def _print(checks: list[Check]) -> None:
    from rich.text import Text

    marks = MARKS if can_show("".join(MARKS.values())) else ASCII_MARKS
    for check in checks:
        line = Text.assemble(
            (marks[check.verdict], STYLES[check.verdict]), f" {check.name:<7} {check.text}"
        )
        console().print(line, soft_wrap=True)


def _failed(name: str, error: Exception) -> Check:
    known = explain(error)
    if known is None:
        raise error
    return Check(name, Verdict.FAIL, known[0])


def _docker() -> Iterator[Check]:
    import trio

    from gyoza.worker.containers.docker_engine import open_docker_engine
    from gyoza.worker.containers.engine_fit import require_fit
    from gyoza.worker.errors import WorkerError

    async def ask() -> "EngineInfo":
        async with open_docker_engine(concurrency=1, deadline_s=PATIENCE_S) as engine:
            info = await engine.info()
            await require_fit(engine, info, _policy())
            return info

    try:
        info = trio.run(ask)
    except WorkerError as error:
        yield _failed("Docker", error)
        return
    yield Check("Docker", Verdict.OK, f"Engine {info.version} answers.")
    if info.warning:
        yield Check("Docker", Verdict.WARN, info.warning)


def _policy() -> "ContainerPolicy":
    """Return the policy that a worker would have by the environment."""
    from gyoza.worker.errors import SettingsError
    from gyoza.worker.policy import ContainerPolicy
    from gyoza.worker.settings import WorkerSettings

    try:
        return WorkerSettings.from_env().policy
    except SettingsError:  # said elsewhere
        return ContainerPolicy()


def _server_and_key(server: Server) -> Iterator[Check]:
    from gyoza.client import ApiError, ClientError, GyozaClient

    with GyozaClient(server.access, timeout=PATIENCE_S) as client:
        try:
            client.health()
            yield Check("Server", Verdict.OK, f"{client.connection.url} answers.")
        except (ApiError, ClientError) as error:
            yield _no_server(server, error)
            yield Check("Key", Verdict.WARN, "Not checked: no server.")
            return
        try:
            client.list_workers()
            for warning in server.access.warnings:
                yield Check("Key", Verdict.WARN, warning)
            yield Check("Key", Verdict.OK, "The server accepts the key.")
        except (ApiError, ClientError) as error:
            yield _failed("Key", error)


def _no_server(server: Server, error: Exception) -> Check:
    """Say what is wrong; before somebody has named or started a server, nothing is."""
    from gyoza.client import ServerUnreachable
    from gyoza.client.access import DEFAULT_URL
    from gyoza.client.credentials import stored_key_path

    is_first = server.access.address == DEFAULT_URL and not stored_key_path().exists()
    if is_first and isinstance(error, ServerUnreachable):
        todo = "start server and worker with `gyoza up`, or name one in GYOZA_SERVER_URL"
        return Check("Server", Verdict.WARN, f"None runs here yet; {todo}.")
    return _failed("Server", error)


def _disk() -> Check:
    from gyoza.worker.errors import SettingsError
    from gyoza.worker.settings import WorkerSettings

    try:
        work_dir = WorkerSettings.from_env().work_dir.absolute()
    except SettingsError as error:
        return _failed("Disk", error)
    return judge_disk(work_dir)


def judge_disk(work_dir: Path) -> Check:
    """Return whether op directories can be made under `work_dir`, which need not exist yet."""
    there = next(path for path in (work_dir, *work_dir.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        advice = "choose another with GYOZA_WORK_DIR"
        return Check("Disk", Verdict.FAIL, f"{there} cannot be written to; {advice}.")
    free = shutil.disk_usage(there).free / GB
    text = f"{free:.1f} GB are free under {work_dir}."
    if free >= WANTED_GB:
        return Check("Disk", Verdict.OK, text)
    verdict = Verdict.WARN if free >= NEEDED_GB else Verdict.FAIL
    return Check("Disk", verdict, f"{text} Make room, or choose another with GYOZA_WORK_DIR.")


def _gpu() -> Check:
    from gyoza.worker.worker_context.nvidia import detect_gpus

    gpus = detect_gpus()
    if not gpus:
        return Check("GPU", Verdict.WARN, "No GPU found (only a problem if your ops need one).")
    found = ", ".join(f"{gpu.tags[-1]} ({gpu.vram_mb} MB)" for gpu in gpus)
    return Check("GPU", Verdict.OK, f"Found {found}.")
