"""Which server the commands talk to: the options every one of them takes, and ids as arguments."""

import re
import sys
from dataclasses import asdict, dataclass
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
        "File with the API key, - for stdin. [default: the key that this user's server stored on "
        "this machine] (GYOZA_API_KEY_FILE, or the key itself in GYOZA_API_KEY)"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]


@dataclass(frozen=True, kw_only=True)
class Server:
    """The flags that say which server is meant, and how it and the command trust each other."""

    server_url: Annotated[
        str | None,
        _option("The server. [default: http://localhost:5555] (GYOZA_SERVER_URL)", "URL"),
    ] = None
    api_key_file: ApiKeyFile = None
    ca_file: Annotated[
        str | None,
        _option("PEM file: trust only the CAs in it. [default: the system's CAs] (GYOZA_CA_FILE)"),
    ] = None
    client_cert: Annotated[
        str | None, _option("PEM file with the client's certificate. (GYOZA_CLIENT_CERT)")
    ] = None
    client_key: Annotated[str | None, _option("PEM file with its key. (GYOZA_CLIENT_KEY)")] = None

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

    @property
    def given(self) -> list[str]:
        """The flags as they were given, for a command to type next."""
        return [
            part
            for name, value in asdict(self).items()
            if value is not None
            for part in (f"--{name.replace('_', '-')}", value)
        ]

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


def _id_argument(what: str, help_text: str | None = None) -> "typer.models.ArgumentInfo":
    def check(value: str) -> str:
        return check_id(value, what)

    return typer.Argument(
        callback=check,
        metavar=what.upper().replace(" ", "_"),
        help=help_text,
        show_default=False,
        autocompletion=completion.OF[what],
    )


RunId = Annotated[str, _id_argument("run id", "The run's id, or its first characters.")]
WorkerId = Annotated[str, _id_argument("worker id")]
DefinitionName = Annotated[str, _id_argument("definition name")]
KeyId = Annotated[str, _id_argument("key id", "As `gyoza keys list` says; its beginning does.")]


def split_version(text: str) -> tuple[str, str | None]:
    """Return name and version of a definition written NAME, NAME@VERSION or NAME:VERSION.

    Raises:
        InvalidIdError: If the name is none.
    """
    name, *rest = re.split("[@:]", text, maxsplit=1)
    return check_id(name, "definition name"), (rest[0] or None) if rest else None


WHOLE = 32
"""Characters of a run's id."""


def find_run(client: "GyozaClient", given: str) -> str:
    """Return the id of the run whose id begins with what was given.

    Raises:
        CliError: If there are several.
        ApiError: If the server refuses.
    """
    if len(given) >= WHOLE:
        return given
    page = client.list_runs(id_prefix=given, limit=CANDIDATES + 1)
    return the_one(given, [str(run.get("id")) for run in page.get("data", [])], "run")


def the_one(given: str, ids: list[str], what: str) -> str:
    """Return the only one of some ids that begins so; what was given, if none does.

    Raises:
        CliError: If several do.
    """
    found = [name for name in ids if name.startswith(given)]
    # A server that does not know the question answers with any: no ground to act on one of them.
    if given in found or not found or len(found) < len(ids):
        return given
    if len(found) == 1:
        return found[0]
    told = ", ".join(found[:CANDIDATES]) + (", …" if len(found) > CANDIDATES else "")
    raise CliError(f"{given!r} begins the id of more than one {what}: {told}; give more of it.")


CANDIDATES = 5
"""How many ids are told that begin so."""
