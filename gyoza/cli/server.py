"""`gyoza server`: the process that keeps definitions and runs."""

import typer

from gyoza.cli import options
from gyoza.cli.logs import Format, Level, LogFormat, LogLevel, configure_logging, teller
from gyoza.cli.session import ApiKeyFile, key_from_stdin
from gyoza.cli.tuning import SERVER, tune_process

app = typer.Typer(no_args_is_help=True, help="Start the server.")


@app.command()
def start(
    host: options.Host = None,
    port: options.Port = None,
    api_key_file: ApiKeyFile = None,
    database_url: options.DatabaseUrl = None,
    tls_certfile: options.Certificate = None,
    tls_keyfile: options.CertificateKey = None,
    tls_client_ca: options.ClientAuthorities = None,
    root_path: options.RootPath = None,
    rate_limit: options.RateLimit = None,
    max_connections: options.MaxConnections = None,
    max_connections_per_address: options.MaxPerAddress = None,
    max_connections_per_key: options.MaxPerKey = None,
    lease_s: options.Lease = None,
    retention_days: options.Retention = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Serve the API until Ctrl-C or SIGTERM; its documentation is at /docs.

    Started without a key it makes one, stores it for this user's other programs and says where.
    """
    configure_logging(log_level, log_format)
    by_stdin = api_key_file == "-"
    settings = options.server_settings(
        host=host,
        port=port,
        api_key=key_from_stdin() if by_stdin else None,
        api_key_file=None if by_stdin else api_key_file,
        database_url=database_url,
        tls_certfile=tls_certfile,
        tls_keyfile=tls_keyfile,
        tls_client_ca=tls_client_ca,
        root_path=root_path,
        rate_limit=rate_limit,
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        max_connections_per_key=max_connections_per_key,
        lease_s=lease_s,
        retention_days=retention_days,
        log_level=log_level,
    )
    import trio

    from gyoza.server.main import serve_until_signal

    tune_process(SERVER)
    trio.run(serve_until_signal, settings, teller(log_format, "gyoza.server"))
