"""`gyoza run`: make a run, and look on if asked to."""

import os
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gyoza.cli import completion
from gyoza.cli.errors import CliError
from gyoza.cli.flags import takes
from gyoza.cli.inputs import check_json, read_inputs, split_pair
from gyoza.cli.output import print_json, read_as, say
from gyoza.cli.session import Json, Server, split_version
from gyoza.models import OpRun
from gyoza.models.definition import InputSpecs
from gyoza.models.policies import MAX_GRACE_S

if TYPE_CHECKING:
    from gyoza.client import GyozaClient


@takes(Server)
def run(
    server: Server,
    image: Annotated[
        str | None, typer.Argument(help="The image; not with --definition.", show_default=False)
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(help="Arguments in place of the image's, after --.", show_default=False),
    ] = None,
    definition: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--definition",
            metavar="NAME[@VERSION]",
            help="Run this definition: image and limits come from there.",
            show_default=False,
            autocompletion=completion.definition_names,
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "-i",
            "--input",
            metavar="KEY=VALUE",
            help="An input: JSON, else text; KEY=@FILE takes the text of a file. Inputs that the "
            "definition says are strings are text.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An input that is text, whatever it looks like: 1.10, true, @home.",
            show_default=False,
        ),
    ] = None,
    inputs_file: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="FILE",
            help="Inputs as a JSON object; - for stdin.",
            show_default=False,
        ),
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher runs first.")] = 5,
    cpu: Annotated[
        float | None,
        typer.Option(min=0.01, help="CPU cores; 0.5 is half of one.", show_default=False),
    ] = None,
    ram_mb: Annotated[
        int | None, typer.Option(min=1, help="Memory in MB.", show_default=False)
    ] = None,
    vram_mb: Annotated[
        int | None, typer.Option(min=1, help="GPU memory in MB.", show_default=False)
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "-e", "--env", metavar="KEY=VALUE", help="An environment variable.", show_default=False
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Pass this variable of yours; its value is hidden in answers and logs.",
            show_default=False,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("-t", "--tag", help="A tag that the worker must have.", show_default=False),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.0, help="Seconds the container may run.", show_default=False),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=MAX_GRACE_S,
            metavar="SECONDS",
            help="Seconds between the stop signal and SIGKILL. [default: the worker's --grace]",
            show_default=False,
        ),
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Give up after N failed attempts. [default: 1 = no retry]",
            show_default=False,
        ),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(
            help="Group name; `gyoza runs list --topic` and the event feed use it.",
            show_default=False,
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="A repeat with the same key prints the same run and makes no other.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("-f", "--follow", help="Show progress and logs until it has ended."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a run of an image or a definition and print its id.

    With --follow its logs and outputs go to standard output, the rest to standard error, and the
    exit code is 1 if it failed or was cancelled. With --json standard output holds the run alone.
    """
    feed = _given(topic=topic)
    options: dict[str, Any] = {
        "command": command or None,
        "env_vars": _variables(env or [], secret or []) or None,
        "secrets": secret or None,
        "tags": tag or None,
        "timeout_s": timeout,
        "grace_s": grace,
        "constraints": _given(cpu=cpu, ram_mb=ram_mb, vram_mb=vram_mb),
        "retry_policy": _given(max_attempts=max_attempts),
    }
    both: dict[str, Any] = {
        "priority": priority,
        "event_delivery": feed,
        "idempotency_key": idempotency_key,
    }
    read = partial(read_inputs, inputs_file, inputs or [], text or [])
    with server.connect() as client:
        if definition is None:
            if image is None:
                raise CliError("Name an image, or a definition with --definition.")
            values = read()
            check_json("The run", [values, options])
            created = client.create_run(image, values, **both, **options)
        else:
            if image is not None or any(value is not None for value in options.values()):
                raise CliError(
                    "With --definition only inputs, --priority, --topic and --idempotency-key can "
                    "be given; the definition says the rest."
                )
            name, version = split_version(definition)
            # Of the types only what is typed here needs to know; the server checks all.
            values = read(_types(client, name, version) if inputs else None)
            check_json("The run", values)
            created = client.create_run_from_definition(name, values, version=version, **both)
    run_id = read_as(OpRun.from_dict, created).id
    if follow:
        from gyoza.cli.follow import follow_run

        raise typer.Exit(follow_run(server.access, run_id, as_json))
    print_json(created) if as_json else say(run_id)


def _types(client: "GyozaClient", name: str, version: str | None) -> dict[str, str]:
    found = client.get_definition(name, version).get("input_specs")
    specs = read_as(InputSpecs.from_dict, cast("dict[str, Any]", found or {})).specs
    return {key: spec.type for key, spec in specs.items()}


def _variables(pairs: list[str], secrets: list[str]) -> dict[str, str]:
    """Return the variables of a run, those that are secret with the values they have here."""
    for name in secrets:
        if name not in os.environ:
            raise CliError(f"--secret {name} takes the value of the variable {name}; set it.")
    given = dict(split_pair(pair, "--env", "KEY=VALUE") for pair in pairs)
    return given | {name: os.environ[name] for name in secrets}


def _given(**values: Any) -> dict[str, Any] | None:
    return {name: value for name, value in values.items() if value is not None} or None
