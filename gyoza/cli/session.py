"""Which server the commands talk to: the options every one of them takes, and ids as arguments."""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gyoza.cli import completion
from gyoza.cli.errors import CliError
from gyoza.models.ids import check_id

if TYPE_CHECKING:
    from gyoza.client import Access, GyozaClient


def _option(help_text: str, metavar: str = "FILE") -> Any:
    return typer.Option(help=help_text, metavar=metavar, show_default=False)


ApiKeyFile = Annotated[
    str | None,
    _option(
        "A file that holds the server's key, - for stdin; GYOZA_API_KEY, GYOZA_API_KEY_FILE, "
        "else the key that this user's server stored on this machine."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]


@dataclass(frozen=True, kw_only=True)
class Server:
    """The flags that say which server is meant, and how it and the command trust each other."""

    server_url: Annotated[
        str | None, _option("The server; GYOZA_SERVER_URL, else http://localhost:5555.", "URL")
    ] = None
    api_key_file: ApiKeyFile = None
    ca_file: Annotated[
        str | None,
        _option("PEM file of the authorities to believe, not the usual ones; GYOZA_CA_FILE."),
    ] = None
    client_cert: Annotated[
        str | None, _option("PEM file with the certificate to show; GYOZA_CLIENT_CERT.")
    ] = None
    client_key: Annotated[str | None, _option("PEM file with its key; GYOZA_CLIENT_KEY.")] = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What they say, named as an `Access` and a worker's settings name it, but for the URL."""
        given_in = self.api_key_file == "-"
        return {
            "api_key": key_from_stdin() if given_in else None,
            "api_key_file": None if given_in else self.api_key_file,
            "ca_file": self.ca_file,
            "client_cert": self.client_cert,
            "client_key": self.client_key,
        }

    @cached_property
    def access(self) -> "Access":
        """Return them for a client, which takes from the variables what they leave open."""
        from gyoza.client import Access

        return Access(url=self.server_url, **self.settings)

    def connect(self) -> "GyozaClient":
        """Return a blocking client of the server."""
        from gyoza.client import GyozaClient

        return GyozaClient(self.access)


def key_from_stdin() -> str:
    """Return the key in the first line of standard input."""
    from gyoza.client.credentials import check_key

    key = sys.stdin.readline().strip()
    if not key:
        raise CliError("Standard input holds no key; give it there, or a file's name.")
    return check_key(key)


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
