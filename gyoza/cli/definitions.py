"""`gyoza definitions`: what is deployed."""

import shlex
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gyoza.cli import completion
from gyoza.cli.errors import CliError
from gyoza.cli.flags import takes
from gyoza.cli.inputs import check_json, read_text
from gyoza.cli.output import (
    Column,
    ago,
    confirmed,
    made_by,
    print_fields,
    print_json,
    print_table,
    read_as,
    say,
    since,
)
from gyoza.cli.session import DefinitionName, Json, Server, split_version
from gyoza.cli.words import needs, seconds, takes_inputs, tries
from gyoza.models import OpDefinition, check_id
from gyoza.models.definition import InputSpecs

if TYPE_CHECKING:
    from gyoza.client import GyozaClient

app = typer.Typer(no_args_is_help=True, help="List, show, deploy and delete op definitions.")

FIELDS = [
    f.name for f in fields(OpDefinition) if f.name not in ("created_at", "updated_at", "created_by")
]


@app.command("list")
@takes(Server)
def list_(server: Server, as_json: Json = False) -> None:
    """List all versions of all definitions."""
    with server.connect() as client:
        found = client.list_definitions()
    if as_json:
        return print_json(found)
    definitions = [read_as(OpDefinition.from_dict, item) for item in found]
    print_table(
        [
            Column("NAME"),
            Column("VERSION"),
            Column("IMAGE", 2, cut=True),
            Column("UPDATED", 1),
            Column("DESCRIPTION", 3, cut=True),
        ],
        [(d.id, d.version, d.image, ago(d.updated_at), d.description) for d in definitions],
        "No definitions yet; deploy one with `gyoza definitions apply gyoza.yml`.",
    )


@app.command()
@takes(Server)
def show(
    server: Server,
    name: DefinitionName,
    version: Annotated[
        str | None, typer.Option(help="[default: the latest]", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a definition."""
    with server.connect() as client:
        found = client.get_definition(name, version)
    if as_json:
        return print_json(found)
    definition = read_as(OpDefinition.from_dict, found)
    print_fields(
        {
            "definition": definition.id,
            "version": definition.version,
            "description": definition.description,
            "image": definition.image,
            "command": shlex.join(definition.command or []),
            "inputs": takes_inputs(read_as(InputSpecs.from_dict, definition.input_specs)),
            "variables": shlex.join(f"{name}={v}" for name, v in definition.env_vars.items()),
            "secrets": ", ".join(definition.secrets),
            "tags": ", ".join(definition.tags),
            "constraints": needs(definition.constraints),
            "time limit": seconds(definition.timeout_s),
            "grace period": seconds(definition.grace_s),
            "attempts": tries(definition.retry_policy),
            "topic": definition.event_delivery.topic,
            "attributes": definition.event_delivery.attributes,
            "created": since(definition.created_at),
            "updated": since(definition.updated_at),
            "made by": made_by(found),
        }
    )


@app.command()
@takes(Server)
def apply(
    server: Server,
    file: Annotated[str, typer.Argument(help="YAML or JSON; - for stdin.")] = "gyoza.yml",
    as_json: Json = False,
) -> None:
    """Deploy the definition in a file: create it, or replace the version it names."""
    definition = read_definition(file)
    with server.connect() as client:
        before = _deployed(client, definition["id"], definition.get("version", "1"))
        applied = client.upsert_definition(definition)
    if as_json:
        return print_json(applied)
    which = f"{applied.get('id')}, version {applied.get('version')}"
    if before is None:
        say(f"Deployed {which}.")
    elif _body(before) == _body(applied) and not applied.get("secrets"):
        say(f"Unchanged: {which}.")
    else:  # values of secrets are shown to nobody, so that they cannot be compared
        say(f"Replaced {which}.")


def _deployed(client: "GyozaClient", name: str, version: str) -> dict[str, Any] | None:
    from gyoza.client import ApiError

    try:
        return client.get_definition(name, version)
    except ApiError as error:
        if not error.says_unknown:
            raise
        return None


def _body(definition: dict[str, Any]) -> dict[str, Any]:
    told_by_server = ("created_at", "updated_at", "created_by")
    return {name: value for name, value in definition.items() if name not in told_by_server}


@app.command()
@takes(Server)
def delete(
    server: Server,
    definition: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@VERSION]",
            help="All its versions, unless one is named.",
            autocompletion=completion.definition_names,
        ),
    ],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a definition; its runs stay."""
    name, version = split_version(definition)
    which = f"{name}, " + (f"version {version}" if version else "all versions")
    if not yes and not confirmed(f"Delete {which}?"):
        raise typer.Abort
    with server.connect() as client:
        client.delete_definition(name, version)
    say(f"Deleted {which}.")


def read_definition(file: str) -> dict[str, Any]:
    """Return the definition in a YAML file.

    Only what the server would not say better is checked here: its sentences name wrong values.

    Raises:
        CliError: If it is no YAML mapping, has unknown fields, or lacks `id` or `image`.
        InvalidIdError: If `id` cannot be an id.
    """
    import yaml

    text = read_text(file)
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise CliError(f"{file} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(data, dict):
        raise CliError(f"{file} must hold a mapping of fields, such as id and image.")
    definition = cast("dict[str, Any]", data)
    unknown = [str(name) for name in definition if name not in FIELDS]
    if unknown:
        raise CliError(
            f"{file} has unknown fields: {', '.join(unknown)}; known are {', '.join(FIELDS)}."
        )
    for name in ("id", "image"):
        if not isinstance(definition.get(name), str):
            raise CliError(f"{file} must give {name}, as text.")
    if not isinstance(definition.get("version", ""), str):
        raise CliError(f'{file} must give the version in quotes, as in version: "1.0".')
    check_id(definition["id"], "definition id")
    check_json(f"The definition in {file}", definition)
    return definition
