"""`gyoza keys`: who may do what on the server."""

import os
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from gyoza.cli.errors import CliError
from gyoza.cli.flags import takes
from gyoza.cli.options import names
from gyoza.cli.output import Column, ago, moment, note, print_json, print_table, say
from gyoza.cli.session import Json, KeyId, Server, the_one

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys; needs an admin's key.")

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Role(StrEnum):
    """What the holder of a key may do."""

    ADMIN = "admin"
    CLIENT = "client"
    WORKER = "worker"


@app.command()
@takes(Server)
def create(
    server: Server,
    name: Annotated[str, typer.Argument(help="Who or what will use it; any text.")],
    role: Annotated[Role, typer.Option(help="What its holder may do.")],
    worker: Annotated[
        str | None,
        typer.Option(
            help="Workers it is for: gpu-1, gpu-*. Required for role worker.", metavar="PATTERN"
        ),
    ] = None,
    tags: Annotated[
        str | None,
        typer.Option(
            help="Tags that its workers may have: a,b. [default: any]",
            metavar="TAGS",
            show_default=False,
        ),
    ] = None,
    max_runs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Runs that its workers may have at a time, together.", show_default=False
        ),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(
            help="How long it is valid: 30d, 12h, 90m. [default: for ever]",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Write the key into this new file, readable by you alone.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it; the server cannot show it again."""
    wish: dict[str, Any] = {
        "worker": worker,
        "tags": names(tags),
        "max_runs": max_runs,
        "ttl_s": None if ttl is None else read_time(ttl),
    }
    if out is None:
        with server.connect() as client:
            made = client.create_key(name, role, **wish)
    else:
        # First the file: a key that cannot be kept is not made.
        try:
            descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise CliError(f"The file {out} cannot be made: {error.strerror}.") from error
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file, server.connect() as client:
                made = client.create_key(name, role, **wish)
                file.write(f"{made['key']}\n")
        except BaseException:
            os.unlink(out)
            raise
        made = {key: value for key, value in made.items() if key != "key"} | {"file": out}
    if as_json:
        return print_json(made)
    note(f"Key {made['id']}, role {made['role']}. Revoke it with `gyoza keys revoke {made['id']}`.")
    say(f"The key is in {out}." if out else made["key"])


def read_time(text: str) -> float:
    """Return the seconds that a text like 30d, 12h, 90m or 45s tells.

    Raises:
        CliError: If it tells none.
    """
    number, unit = text[:-1].strip(), text[-1:]
    if unit not in UNITS or not (number.isascii() and number.isdigit()) or int(number) == 0:
        raise CliError(f"--ttl takes a time like 30d, 12h, 90m or 45s, not {text!r}.")
    return float(int(number) * UNITS[unit])


@app.command("list")
@takes(Server)
def list_(server: Server, as_json: Json = False) -> None:
    """List all keys except the server's own."""
    with server.connect() as client:
        keys = client.list_keys()
    if as_json:
        return print_json(keys)
    print_table(
        [
            Column("KEY"),
            Column("NAME", cut=True),
            Column("ROLE"),
            Column("WORKERS", 2, cut=True),
            Column("TAGS", 4, cut=True),
            Column("MAX RUNS", 5),
            Column("MADE", 3),
            Column("LAST USED", 1),
            Column("EXPIRES", 2),
        ],
        [_row(key) for key in keys],
        "No keys but the server's own; make one with `gyoza keys create`.",
    )


def _row(key: dict[str, Any]) -> list[object]:
    used = key.get("last_used_at")
    return [
        key.get("id"),
        key.get("name"),
        key.get("role"),
        key.get("worker"),
        None if key.get("tags") is None else ",".join(key["tags"]),
        key.get("max_runs"),
        moment(key.get("created_at")),
        f"{ago(datetime.fromisoformat(used))} ago" if used else "never",
        moment(key.get("expires_at")) or "never",
    ]


@app.command()
@takes(Server)
def revoke(server: Server, key_id: KeyId, as_json: Json = False) -> None:
    """Revoke a key: from now on requests with it are refused."""
    with server.connect() as client:
        known = [str(key.get("id")) for key in client.list_keys()]
        key_id = the_one(key_id, [name for name in known if name.startswith(key_id)], "key")
        left = client.revoke_key(key_id)
    print_json(left) if as_json else say(f"Key {key_id} is revoked.")
