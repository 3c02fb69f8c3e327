"""The blocking entry: one server for this process, until a signal ends it."""

import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import trio

from gyoza import descriptors
from gyoza.server.auth import ensure_api_key
from gyoza.server.errors import ServerError, SettingsError
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings

Tell = Callable[[str], object]
"""Is called with each sentence about a server that has started."""


def print_line(sentence: str) -> None:
    """Print a sentence; a standard output that takes none is no reason not to serve."""
    with suppress(OSError):
        sys.stdout.write(f"{sentence}\n")
        sys.stdout.flush()


def start(
    host: str | None = None,
    port: int | None = None,
    reload: bool | None = None,
    workers: int | None = None,
    log_level: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. Arguments win over `GYOZA_*` variables, these over defaults.

    Args:
        host: Name or address to listen on.
        port: TCP port; 0 takes any free one.
        reload: Not available: a reload would end every long poll.
        workers: Number of processes; only 1, since long polls are woken within one process.
        log_level: One of critical, error, warning, info, debug.

    Raises:
        ServerError: If the server cannot start; says why in one sentence.
    """
    if reload:
        raise SettingsError("The server cannot reload itself; stop it and start it again.")
    if workers is not None and workers != 1:
        raise SettingsError(
            "The server runs in one process, since it wakes waiting workers there; leave out "
            "workers or set it to 1."
        )
    settings = ServerSettings.from_env(host=host, port=port, log_level=log_level)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    descriptors.raise_limit()
    try:
        trio.run(serve_until_signal, settings)
    except BaseExceptionGroup as group:
        match list(group.exceptions):
            case [ServerError() as error]:
                raise error from None
            case _:
                raise


async def serve_until_signal(settings: ServerSettings, tell: Tell = print_line) -> None:
    """Serve until SIGINT or SIGTERM; `tell` hears where the server is."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            await start_server(nursery, settings, tell, pin_key=False)


async def start_server(
    nursery: trio.Nursery,
    settings: ServerSettings,
    tell: Tell = print_line,
    *,
    pin_key: bool = True,
) -> tuple[str, str]:
    """Start a server in a nursery, tell where it is, and return its URL and key.

    Args:
        nursery: Where it runs.
        settings: Its settings.
        tell: Hears where the server, its key and its database are.
        pin_key: Keep the key that is returned, whatever becomes of the file it was found in.
    """
    key = await trio.to_thread.run_sync(ensure_api_key, settings)
    used = replace(settings, api_key=key.value) if pin_key else settings
    url: str = await nursery.start(serve, used)
    everywhere = settings.host in ("", "0.0.0.0", "::")
    of_this_machine = ", on all addresses of this machine" if everywhere else ""
    tell(f"gyoza server listens on {url}{of_this_machine} (API documentation: {url}/docs)")
    tell(f"API key: {key.origin}")
    tell(f"Database: {settings.database_path}")
    return url, key.value


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
