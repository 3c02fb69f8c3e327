"""`gyoza runs`: look at runs, cancel and retry them."""

import sys
from typing import Annotated, Any

import typer

from gyoza.cli import completion
from gyoza.cli.flags import takes
from gyoza.cli.output import (
    ago,
    console,
    note,
    print_fields,
    print_json,
    print_table,
    read_as,
    say,
)
from gyoza.cli.session import Json, RunId, Server
from gyoza.cli.terminal import LogText
from gyoza.cli.text_output import TextOutput
from gyoza.models import EventEntry, OpRun, OpRunState

app = typer.Typer(no_args_is_help=True, help="List, show, cancel and retry runs.")

Attempt = Annotated[
    int | None, typer.Option(min=1, help="The current one unless given.", show_default=False)
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
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    after: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Only those older than this run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    with server.connect() as client:
        page = client.list_runs(
            limit=limit,
            starting_after=after,
            state=state,
            op_definition=definition,
            image=image,
            topic=topic,
        )
    if as_json:
        return print_json(page)
    runs = [read_as(OpRun.from_dict, item) for item in page.get("data", [])]
    print_table(
        ["RUN", "STATE", "%", "IMAGE", "DEFINITION", "WORKER", "AGE"],
        [_row(run) for run in runs],
        "No runs.",
    )
    if runs and page.get("has_more"):
        console().print(f"There are more: `gyoza runs list --after {runs[-1].id}`.")


def _row(run: OpRun) -> list[object]:
    return [
        run.id,
        run.state,
        run.progress,
        run.image,
        run.op_definition,
        run.worker_id,
        ago(run.created_at),
    ]


@app.command()
@takes(Server)
def show(server: Server, run_id: RunId, as_json: Json = False) -> None:
    """Show a run: its state, inputs, outputs, events and why it failed."""
    with server.connect() as client:
        found = client.get_run(run_id)
    if as_json:
        return print_json(found)
    run = read_as(OpRun.from_dict, found)
    summary = run.execution_summary
    took = summary.duration_ms
    print_fields(
        {
            "run": run.id,
            "state": run.state,
            "progress": f"{run.progress} %",
            "attempt": str(run.current_attempt),
            "image": run.image,
            "definition": run.op_definition,
            "command": run.command,
            "worker": run.worker_id,
            "constraints": {k: v for k, v in run.constraints.to_dict().items() if v is not None},
            "time limit": _seconds(run.timeout_s),
            "grace period": _seconds(run.grace_s),
            "created": f"{ago(run.created_at)} ago" if run.created_at else None,
            "duration": None if took is None else f"{took / 1000:.1f} s",
            "inputs": run.inputs,
            "outputs": run.outputs,
            "reason": summary.reason,
            "exit code": summary.exit_code,
            "error": summary.error_message,
        }
    )
    if run.events:
        print()
        print_table(["TIME", "EVENT", "MESSAGE"], [_event(event) for event in run.events], "")


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:g} s"


def _event(event: EventEntry) -> list[object]:
    return [f"{event.t.astimezone():%H:%M:%S}", event.type, event.msg]


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
    """Print the log text of a run; on a terminal only its colours may act, in a pipe it is raw.

    Exits with 3 if the end of the log of a run that is over is missing. A server that goes away
    meanwhile is waited for, up to 5 minutes.
    """
    from gyoza.cli.outages import PATIENCE_S, Outages

    output = TextOutput(sys.stdout)
    shown = LogText() if output.isatty else None
    with server.connect() as client:
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
        _say(client.cancel_run(run_id), as_json)


@app.command()
@takes(Server)
def retry(server: Server, run_id: RunId, as_json: Json = False) -> None:
    """Queue a failed or cancelled run once more."""
    with server.connect() as client:
        _say(client.retry_run(run_id), as_json)


def _say(run: dict[str, Any], as_json: bool) -> None:
    print_json(run) if as_json else say(f"Run {run.get('id')} is {run.get('state')}.")
