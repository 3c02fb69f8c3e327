"""`gyoza runs`: look at runs, cancel and retry them."""

import shlex
import sys
from typing import Annotated, Any

import typer

from gyoza.cli import completion
from gyoza.cli.flags import takes
from gyoza.cli.output import (
    Column,
    ago,
    made_by,
    moment,
    note,
    print_fields,
    print_json,
    print_table,
    read_as,
    say,
    since,
)
from gyoza.cli.session import Json, RunId, Server, find_run
from gyoza.cli.terminal import LogText
from gyoza.cli.text_output import TextOutput
from gyoza.cli.words import needs, seconds, took
from gyoza.models import EventEntry, OpAttempt, OpRun, OpRunState, check_id

app = typer.Typer(no_args_is_help=True, help="List, show, cancel and retry runs.")

MAX_LIMIT = 500
"""Runs of a page; the server gives no more."""

Attempt = Annotated[
    int | None,
    typer.Option(
        min=1, help="Number of the attempt. [default: the current one]", show_default=False
    ),
]


COLUMNS = [
    Column("RUN"),
    Column("STATE"),
    Column("%", 6),
    Column("IMAGE", 1, cut=True),
    Column("DEFINITION", 7),
    Column("WORKER", 4),
    Column("AGE", 2),
    Column("DURATION", 3),
    Column("ERROR", 5, cut=True, least=20),
]


@app.command("list")
@takes(Server)
def list_(
    server: Server,
    state: Annotated[OpRunState | None, typer.Option(case_sensitive=False)] = None,
    definition: Annotated[
        str | None, typer.Option("-d", "--definition", autocompletion=completion.definition_names)
    ] = None,
    image: Annotated[str | None, typer.Option()] = None,
    topic: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="How many.")] = 20,
    after: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Only those older than this run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    filters = {"state": state, "definition": definition, "image": image, "topic": topic}
    with server.connect() as client:
        page = client.list_runs(
            limit=limit,
            starting_after=find_run(client, check_id(after, "run id")) if after else None,
            state=state,
            op_definition=definition,
            image=image,
            topic=topic,
        )
    if as_json:
        return print_json(page)
    runs = [read_as(OpRun.from_dict, item) for item in page.get("data", [])]
    print_table(COLUMNS, [_row(run) for run in runs], "No runs.")
    if runs and page.get("has_more"):
        given = [part for name, told in filters.items() if told for part in (f"--{name}", told)]
        rest = [*given, "--limit", str(limit), "--after", runs[-1].id, *server.given]
        note(f"There are more: `gyoza runs list {shlex.join(rest)}`.")


def _row(run: OpRun) -> list[object]:
    summary = run.execution_summary
    failed = run.state is OpRunState.FAILED
    return [
        run.id,
        run.state,
        run.progress,
        run.image,
        run.op_definition,
        run.worker_id,
        ago(run.created_at),
        took(summary.duration_ms),
        " ".join((summary.error_message or "").split()) if failed else None,
    ]


@app.command()
@takes(Server)
def show(server: Server, run_id: RunId, as_json: Json = False) -> None:
    """Show a run: its state, inputs, outputs, events and why it failed."""
    with server.connect() as client:
        found = client.get_run(find_run(client, run_id))
    if as_json:
        return print_json(found)
    run = read_as(OpRun.from_dict, found)
    summary = run.execution_summary
    print_fields(
        {
            "run": run.id,
            "state": run.state,
            "progress": f"{run.progress} %",
            "attempt": str(run.current_attempt),
            "image": run.image,
            "definition": run.op_definition,
            "command": shlex.join(run.command or []),
            "worker": run.worker_id,
            "tags": ", ".join(run.tags),
            "priority": str(run.priority),
            "topic": run.event_delivery.topic,
            "constraints": needs(run.constraints),
            "time limit": seconds(run.timeout_s),
            "grace period": seconds(run.grace_s),
            "created": since(run.created_at),
            "made by": made_by(found),
            "duration": took(summary.duration_ms),
            "inputs": run.inputs,
            "outputs": run.outputs,
            "reason": summary.reason,
            "exit code": summary.exit_code,
            "error": summary.error_message,
        }
    )
    if run.events:
        print()
        columns = [Column("TIME"), Column("EVENT"), Column("MESSAGE")]
        print_table(columns, [_event(event) for event in run.events], "")


def _event(event: EventEntry) -> list[object]:
    return [moment(event.t), event.type, event.msg]


@app.command()
@takes(Server)
def attempts(server: Server, run_id: RunId, as_json: Json = False) -> None:
    """List the attempts of a run: where each ran, how long, and how it ended."""
    with server.connect() as client:
        found = client.get_attempts(find_run(client, run_id))
    if as_json:
        return print_json(found)
    columns = [
        Column("ATTEMPT"),
        Column("STATE"),
        Column("WORKER", 1),
        Column("STARTED", 2),
        Column("DURATION", 3),
        Column("REASON"),
        Column("EXIT CODE", 4),
        Column("ERROR"),
    ]
    listed = [read_as(OpAttempt.from_dict, item) for item in found]
    print_table(columns, [_attempt(one) for one in listed], "No attempt has begun yet.")


def _attempt(attempt: OpAttempt) -> list[object]:
    summary = attempt.execution_summary
    return [
        attempt.attempt,
        attempt.state,
        summary.worker_id,
        moment(attempt.started_at),
        took(summary.duration_ms),
        summary.reason,
        summary.exit_code,
        summary.error_message,
    ]


@app.command()
@takes(Server)
def logs(
    server: Server,
    run_id: RunId,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the attempt is over.")
    ] = False,
    attempt: Attempt = None,
) -> None:
    """Print the log text of a run.

    Control sequences other than colours are removed on a terminal; piped output is unchanged.

    Exits with 3 if the end of the log of a run that is over is missing. A server that goes away
    meanwhile is waited for, up to 5 minutes.
    """
    from gyoza.cli.outages import PATIENCE_S, Outages

    output = TextOutput(sys.stdout)
    shown = LogText() if output.isatty else None
    with server.connect() as client:
        run_id = find_run(client, run_id)
        client.get_run(run_id)  # a server or a run that is not there is told at once
        pieces = client.stream_logs(
            run_id,
            attempt=attempt,
            follow=follow,
            patience_s=PATIENCE_S,
            tell=Outages(note).teller(),
        )
        try:
            for piece in pieces:
                output.write(shown.feed(piece.text) if shown else piece.text)
        finally:
            if shown:
                output.write(shown.end())


@app.command()
@takes(Server)
def cancel(server: Server, run_id: RunId, as_json: Json = False) -> None:
    """Cancel a run that has not ended."""
    with server.connect() as client:
        _say(client.cancel_run(find_run(client, run_id)), as_json)


@app.command()
@takes(Server)
def retry(server: Server, run_id: RunId, as_json: Json = False) -> None:
    """Queue a failed or cancelled run once more."""
    with server.connect() as client:
        _say(client.retry_run(find_run(client, run_id)), as_json)


@app.command()
@takes(Server)
def priority(
    server: Server,
    run_id: RunId,
    value: Annotated[int, typer.Argument(metavar="PRIORITY", help="Higher runs first.")],
    as_json: Json = False,
) -> None:
    """Change the priority of a run that waits in the queue."""
    with server.connect() as client:
        run = client.update_run(find_run(client, run_id), priority=value)
    if as_json:
        return print_json(run)
    say(f"Run {run.get('id')} has priority {run.get('priority')}.")


def _say(run: dict[str, Any], as_json: bool) -> None:
    print_json(run) if as_json else say(f"Run {run.get('id')} is {run.get('state')}.")
