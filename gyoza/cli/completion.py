"""Shell completion of ids that the server knows: best effort, silent when it does not answer."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Thread
from typing import Any

import typer

PATIENCE_S = 1.0
"""Seconds that the Tab key may take here, whatever the network does."""

Complete = Callable[[typer.Context, str], list[str]]


def _ids(context: typer.Context, incomplete: str, list_them: str, **params: Any) -> list[str]:
    """Return the ids in a list, asked for once: a shell must not stand still."""
    from gyoza.client import Access, ApiError, ClientError, GyozaClient, endpoints
    from gyoza.client.retry import NEVER

    found: list[str] = []

    def ask() -> None:
        flags = ("api_key_file", "ca_file", "client_cert", "client_key")
        given = {name: context.params.get(name) for name in flags}
        if given["api_key_file"] == "-":  # standard input is the terminal's
            return
        with suppress(ApiError, ClientError, ValueError, AttributeError, TypeError):
            access = Access(url=context.params.get("server_url"), **given)
            with GyozaClient(access, timeout=PATIENCE_S) as client:
                answer: Any = client.send(
                    replace(getattr(endpoints, list_them)(**params), retry=NEVER)
                )
            items: Any = answer["data"] if list_them == "list_runs" else answer
            found.extend(str(item["id"]) for item in items)

    # The look-up of a name takes as long as it takes, and nothing can end it: it is left behind.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return sorted({name for name in found if name.startswith(incomplete)})


def run_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids of the newest runs."""
    return _ids(ctx, incomplete, "list_runs", limit=100)


def worker_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids of the workers."""
    return _ids(ctx, incomplete, "list_workers")


def definition_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return names of the definitions."""
    return _ids(ctx, incomplete, "list_definitions")


def key_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids of the keys, to those who may see them."""
    return _ids(ctx, incomplete, "list_keys")


OF: dict[str, Complete] = {
    "run id": run_ids,
    "worker id": worker_ids,
    "definition name": definition_names,
    "key id": key_ids,
}
"""By what is to be completed."""
