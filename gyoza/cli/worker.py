"""`gyoza worker`: the process that executes runs."""

import typer

from gyoza.cli import options
from gyoza.cli.errors import CliError
from gyoza.cli.flags import takes
from gyoza.cli.logs import Format, Level, LogFormat, LogLevel, configure_logging
from gyoza.cli.session import Server
from gyoza.cli.tuning import WORKER, tune_process

app = typer.Typer(no_args_is_help=True, help="Start a worker.")


@app.command()
@takes(Server)
@takes(options.Policy)
def start(
    policy: options.Policy,
    server: Server,
    worker_id: options.WorkerName = None,
    worker_tags: options.WorkerTags = None,
    work_dir: options.WorkDir = None,
    cpus: options.Cpus = None,
    ram_mb: options.RamMb = None,
    max_concurrency: options.MaxConcurrency = None,
    pull_policy: options.PullPolicy = None,
    registry_wait: options.RegistryWait = None,
    grace: options.Grace = None,
    drain_timeout: options.DrainTimeout = None,
    heartbeat: options.Heartbeat = None,
    fence_after: options.FenceAfter = None,
    once: options.Once = False,
    max_runs: options.MaxRuns = None,
    idle_exit: options.IdleExit = None,
    min_free_mb: options.MinFreeMb = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Claim runs and execute each in a container, until Ctrl-C or SIGTERM.

    The first signal drains: nothing new is claimed and what runs may finish. The second stops what
    runs and gives it back to the server. The third ends the process at once and leaves what runs to
    its next start.
    """
    if once and max_runs not in (None, 1):
        raise CliError("--once means --max-runs 1; give only one of them.")
    configure_logging(log_level, log_format)
    settings = options.worker_settings(
        server_url=server.server_url,
        **server.settings,
        **policy.settings,
        worker_id=worker_id,
        worker_tags=worker_tags,
        work_dir=work_dir,
        cpus=cpus,
        ram_mb=ram_mb,
        max_concurrency=max_concurrency,
        pull_policy=pull_policy,
        registry_wait_s=registry_wait,
        grace_s=grace,
        drain_timeout_s=drain_timeout,
        heartbeat_s=heartbeat,
        fence_after_s=fence_after,
        max_runs=1 if once else max_runs,
        idle_exit_s=idle_exit,
        min_free_mb=min_free_mb,
    )
    from gyoza.worker.runner.main import run
    from gyoza.worker.runner.signals import ignore_signals

    tune_process(WORKER)
    raise typer.Exit(run(settings, on_end=ignore_signals))
