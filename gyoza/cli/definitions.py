"""`gyoza definitions`: what is deployed."""

from dataclasses import fields
from typing import Annotated, Any, cast

import typer

from gyoza.cli.errors import CliError
from gyoza.cli.flags import takes
from gyoza.cli.inputs import check_json, read_text
from gyoza.cli.output import ago, print_fields, print_json, print_table, read_as, say
from gyoza.cli.session import DefinitionName, Json, Server
from gyoza.models import OpDefinition, check_id

app = typer.Typer(no_args_is_help=True, help="List, show and deploy op definitions.")

FIELDS = [f.name for f in fields(OpDefinition) if f.name not in ("created_at", "updated_at")]


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
        ["NAME", "VERSION", "IMAGE", "UPDATED", "DESCRIPTION"],
        [(d.id, d.version, d.image, ago(d.updated_at), d.description) for d in definitions],
        "No definitions yet; deploy one with `gyoza definitions apply gyoza.yml`.",
    )


@app.command()
@takes(Server)
def show(
    server: Server,
    name: DefinitionName,
    version: Annotated[
        str | None, typer.Option(help="The latest unless given.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a definition."""
    with server.connect() as client:
        found = client.get_definition(name, version)
    if as_json:
        return print_json(found)
    definition = read_as(OpDefinition.from_dict, found)
    print_fields(definition.to_dict())


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
        applied = client.upsert_definition(definition)
    if as_json:
        return print_json(applied)
    say(f"Deployed {applied.get('id')}, version {applied.get('version')}.")


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
