"""`gyoza workers`: who executes runs."""

from datetime import datetime
from typing import Any

import typer

from gyoza.cli.flags import takes
from gyoza.cli.output import ago, print_fields, print_json, print_table
from gyoza.cli.session import Json, Server, WorkerId

app = typer.Typer(no_args_is_help=True, help="List, show, drain and resume workers.")


@app.command("list")
@takes(Server)
def list_(server: Server, as_json: Json = False) -> None:
    """List the workers the server knows."""
    with server.connect() as client:
        workers = client.list_workers()
    if as_json:
        return print_json(workers)
    print_table(
        ["WORKER", "STATE", "HEALTH", "RUNS", "CPU", "RAM MB", "GPUS", "TAGS", "LAST SEEN"],
        [_row(worker) for worker in workers],
        "No workers yet; start one with `gyoza worker start`.",
    )


def _row(worker: dict[str, Any]) -> list[object]:
    resources: dict[str, Any] = worker.get("resources") or {}
    return [
        worker.get("id"),
        worker.get("state"),
        _health(worker),
        len(worker.get("running_ops") or []),
        f"{resources.get('cpu_cores', 0):g}",
        f"{resources.get('ram_mb', 0):.0f}",
        len(resources.get("gpus") or []),
        ", ".join(worker.get("tags") or []),
        _since(worker.get("last_seen")),
    ]


def _health(worker: dict[str, Any]) -> str:
    """Return what keeps a worker from getting runs, as far as its heartbeats tell."""
    told = [(part, worker.get(part) or "ok") for part in ("engine", "disk")]
    return ", ".join(f"{part} {how}" for part, how in told if how != "ok") or "ok"


def _since(moment: str | None) -> str:
    return ago(datetime.fromisoformat(moment)) if moment else ""


@app.command()
@takes(Server)
def show(
    server: Server,
    worker_id: WorkerId,
    as_json: Json = False,
) -> None:
    """Show a worker: what it has and what it runs."""
    with server.connect() as client:
        worker = client.get_worker(worker_id)
    print_json(worker) if as_json else print_fields(worker)


@app.command()
@takes(Server)
def drain(
    server: Server,
    worker_id: WorkerId,
    as_json: Json = False,
) -> None:
    """Give a worker no more runs; those it has go on."""
    with server.connect() as client:
        worker = client.drain_worker(worker_id)
    if as_json:
        return print_json(worker)
    print(f"Worker {worker_id} gets no more runs; `gyoza workers resume {worker_id}` ends that.")


@app.command()
@takes(Server)
def resume(
    server: Server,
    worker_id: WorkerId,
    as_json: Json = False,
) -> None:
    """End a drain: the worker gets runs again."""
    with server.connect() as client:
        worker = client.resume_worker(worker_id)
    if as_json:
        return print_json(worker)
    print(f"Worker {worker_id} gets runs again.")
