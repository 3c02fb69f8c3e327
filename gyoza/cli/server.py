"""`gyoza server`: the process that keeps definitions and runs."""

import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from gyoza.cli import options
from gyoza.cli.logs import Format, Level, LogFormat, LogLevel, configure_logging
from gyoza.cli.session import ApiKey

if TYPE_CHECKING:
    import trio

    from gyoza.server.settings import ServerSettings

app = typer.Typer(no_args_is_help=True, help="Start the server.")


@app.command()
def start(
    host: options.Host = None,
    port: options.Port = None,
    api_key: ApiKey = None,
    database_url: options.DatabaseUrl = None,
    tls_certfile: options.Certificate = None,
    tls_keyfile: options.CertificateKey = None,
    lease_s: options.Lease = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Serve the API until Ctrl-C or SIGTERM; its documentation is at /docs.

    Started without a key it makes one, stores it for this user's other programs and says where.
    """
    configure_logging(log_level, log_format)
    settings = options.server_settings(
        host=host,
        port=port,
        api_key=api_key,
        database_url=database_url,
        tls_certfile=tls_certfile,
        tls_keyfile=tls_keyfile,
        lease_s=lease_s,
        log_level=log_level,
    )
    import trio

    trio.run(_serve_until_signal, settings)


async def _serve_until_signal(settings: "ServerSettings") -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on, signals, nursery.cancel_scope)
            await start_server(nursery, settings)


async def _cancel_on(signals: AsyncIterator[int], scope: "trio.CancelScope") -> None:
    async for _ in signals:
        scope.cancel()


async def start_server(nursery: "trio.Nursery", settings: "ServerSettings") -> tuple[str, str]:
    """Start a server in a nursery, say where it is, and return its URL and key."""
    import trio

    from gyoza.server.auth import ensure_api_key
    from gyoza.server.serve import serve

    key = await trio.to_thread.run_sync(ensure_api_key, settings)
    url = await nursery.start(serve, replace(settings, api_key=key.value))
    print(f"The server listens on {url}; its API is documented at {url}/docs.")
    print(f"API key: {key.origin}. Database: {settings.database_path}.", flush=True)
    return url, key.value
