"""`gyoza worker`: the process that executes runs."""

import typer

from gyoza.cli import options
from gyoza.cli.logs import Format, Level, LogFormat, LogLevel, configure_logging
from gyoza.cli.session import ApiKey, ServerUrl, address

app = typer.Typer(no_args_is_help=True, help="Start a worker.")


@app.command()
def start(
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
    worker_id: options.WorkerName = None,
    worker_tags: options.WorkerTags = None,
    work_dir: options.WorkDir = None,
    max_concurrency: options.MaxConcurrency = None,
    pull_policy: options.PullPolicy = None,
    grace_s: options.Grace = None,
    drain_timeout_s: options.DrainTimeout = None,
    heartbeat_s: options.Heartbeat = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Claim runs and execute each in a container, until Ctrl-C or SIGTERM.

    The first signal drains: nothing new is claimed and what runs may finish. The second stops what
    runs and gives it back to the server.
    """
    configure_logging(log_level, log_format)
    url, key = address(server_url, api_key)
    settings = options.worker_settings(
        server_url=url,
        api_key=key,
        worker_id=worker_id,
        worker_tags=worker_tags,
        work_dir=work_dir,
        max_concurrency=max_concurrency,
        pull_policy=pull_policy,
        grace_s=grace_s,
        drain_timeout_s=drain_timeout_s,
        heartbeat_s=heartbeat_s,
    )
    from gyoza.worker.runner.main import run

    raise typer.Exit(run(settings))
