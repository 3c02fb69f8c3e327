"""`gyoza workers`: who executes runs."""

from datetime import datetime
from typing import Any

import typer

from gyoza.cli.flags import takes
from gyoza.cli.output import Column, ago, print_fields, print_json, print_table, read_as, say, since
from gyoza.cli.session import Json, Server, WorkerId
from gyoza.cli.words import count, has

app = typer.Typer(no_args_is_help=True, help="List, show, drain, resume and forget workers.")


GONE = ("lost", "offline")
"""States of workers whose last heartbeat says nothing of now."""


@app.command("list")
@takes(Server)
def list_(server: Server, as_json: Json = False) -> None:
    """List the workers the server knows."""
    with server.connect() as client:
        workers = client.list_workers()
    if as_json:
        return print_json(workers)
    print_table(
        [
            Column("WORKER"),
            Column("STATE"),
            Column("HEALTH"),
            Column("RUNS", 2),
            Column("CPU", 4),
            Column("RAM MB", 5),
            Column("GPUS", 6),
            Column("TAGS", 3, cut=True),
            Column("LAST SEEN", 1),
        ],
        [_row(worker) for worker in workers],
        "No workers yet; start one with `gyoza worker start`.",
    )


def _row(worker: dict[str, Any]) -> list[object]:
    resources: dict[str, Any] = worker.get("resources") or {}
    return [
        worker.get("id"),
        worker.get("state"),
        _health(worker),
        "" if worker.get("state") in GONE else _runs(worker),
        f"{resources.get('cpu_cores', 0):g}",
        f"{resources.get('ram_mb', 0):.0f}",
        len(resources.get("gpus") or []),
        ", ".join(worker.get("tags") or []),
        _since(worker.get("last_seen")),
    ]


def _runs(worker: dict[str, Any]) -> int:
    """Return how many runs it was given, also those that its last heartbeat does not list yet."""
    return worker.get("held", len(worker.get("running_ops") or []))


def _health(worker: dict[str, Any]) -> str:
    """Return what keeps a worker from getting runs, as far as its heartbeats tell."""
    if worker.get("state") in GONE:
        return "unknown"
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
    if as_json:
        return print_json(worker)
    print_fields(read_as(_fields, worker))


def _fields(worker: dict[str, Any]) -> dict[str, object]:
    most = worker.get("max_concurrency")
    running: list[dict[str, Any]] = worker.get("running_ops") or []
    runs = "; ".join(f"{op['id']} ({op.get('image')})" for op in running) or "none"
    return {
        "worker": worker.get("id"),
        "state": worker.get("state"),
        "health": _health(worker),
        "resources": has(worker.get("resources") or {}),
        "tags": ", ".join(worker.get("tags") or []),
        "takes": None if most is None else f"{count(most, 'run')} at a time",
        "runs": "unknown" if worker.get("state") in GONE else runs,
        "version": worker.get("version"),
        "first seen": since(worker.get("first_seen")),
        "last seen": since(worker.get("last_seen")),
    }


@app.command()
@takes(Server)
def drain(
    server: Server,
    worker_id: WorkerId,
    as_json: Json = False,
) -> None:
    """Give a worker no more runs; those it has already go on to their end."""
    with server.connect() as client:
        worker = client.drain_worker(worker_id)
    if as_json:
        return print_json(worker)
    say(f"Worker {worker_id} is draining; undo it with `gyoza workers resume {worker_id}`.")


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
    say(f"Worker {worker_id} gets runs again.")


@app.command()
@takes(Server)
def forget(server: Server, worker_id: WorkerId) -> None:
    """Take a worker that has ended or is lost off the list."""
    with server.connect() as client:
        client.forget_worker(worker_id)
    say(f"Worker {worker_id} is forgotten.")
