"""Which server the commands talk to: the options every one of them takes, and ids as arguments."""

from typing import TYPE_CHECKING, Annotated

import typer

from gyoza.cli import completion
from gyoza.models.ids import check_id

if TYPE_CHECKING:
    from gyoza.client import GyozaClient

ServerUrl = Annotated[
    str | None,
    typer.Option(
        help="The server; GYOZA_SERVER_URL, else http://localhost:5555.",
        metavar="URL",
        show_default=False,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        help="The server's key; GYOZA_API_KEY or the file GYOZA_API_KEY_FILE, "
        "else the key that this user's server stored on this machine.",
        metavar="KEY",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]


def _id_argument(what: str) -> "typer.models.ArgumentInfo":
    def check(value: str) -> str:
        return check_id(value, what)

    return typer.Argument(
        callback=check,
        metavar=what.upper().replace(" ", "_"),
        show_default=False,
        autocompletion=completion.OF[what],
    )


RunId = Annotated[str, _id_argument("run id")]
WorkerId = Annotated[str, _id_argument("worker id")]
DefinitionName = Annotated[str, _id_argument("definition name")]


def address(server_url: str | None, api_key: str | None) -> tuple[str | None, str | None]:
    """Return URL and key as the clients and the worker take them, flags before variables."""
    if server_url is None:
        return None, api_key
    from gyoza.client.connection import check_url, key_for

    url = check_url(server_url)
    return url, api_key or key_for(url)


def connect(server_url: str | None, api_key: str | None) -> "GyozaClient":
    """Return the blocking client of the server that flags and variables name."""
    from gyoza.client import GyozaClient

    return GyozaClient(*address(server_url, api_key))
