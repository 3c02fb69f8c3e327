"""`gyoza keys`: who may do what on the server."""

from enum import StrEnum
from typing import Annotated

import typer

from gyoza.cli.flags import takes
from gyoza.cli.output import note, print_json, print_table
from gyoza.cli.session import Json, Server

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys; needs an admin's key.")


class Role(StrEnum):
    """What the holder of a key may do."""

    ADMIN = "admin"
    CLIENT = "client"
    WORKER = "worker"


@app.command()
@takes(Server)
def create(
    server: Server,
    name: Annotated[str, typer.Argument(help="For people: who or what will have it.")],
    role: Annotated[Role, typer.Option(help="What it is good for.")],
    worker: Annotated[
        str | None,
        typer.Option(help="Workers it is for, for role worker: gpu-1, gpu-*.", metavar="PATTERN"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once: the server keeps a digest of it alone."""
    with server.connect() as client:
        made = client.create_key(name, role, worker=worker)
    if as_json:
        return print_json(made)
    note(f"Key {made['id']} of role {made['role']}; `gyoza keys revoke {made['id']}` ends it.")
    print(made["key"])


@app.command("list")
@takes(Server)
def list_(server: Server, as_json: Json = False) -> None:
    """List the keys, but for the server's own."""
    with server.connect() as client:
        keys = client.list_keys()
    if as_json:
        return print_json(keys)
    print_table(
        ["KEY", "NAME", "ROLE", "WORKERS", "MADE"],
        [
            [key.get("id"), key.get("name"), key.get("role"), key.get("worker"), key["created_at"]]
            for key in keys
        ],
        "No keys but the server's own; make one with `gyoza keys create`.",
    )


@app.command()
@takes(Server)
def revoke(
    server: Server,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="As `gyoza keys list` says.")],
    as_json: Json = False,
) -> None:
    """Make a key good no more, at once."""
    with server.connect() as client:
        left = client.revoke_key(key_id)
    print_json(left) if as_json else print(f"Key {key_id} is good no more.")
