"""`gyoza up`: server and worker for one machine, in one process and one nursery."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gyoza.cli import options
from gyoza.cli.flags import takes
from gyoza.cli.logs import Format, Level, LogFormat, LogLevel, configure_logging, teller
from gyoza.cli.tuning import WORKER, tune_process

if TYPE_CHECKING:
    from gyoza.server.settings import ServerSettings
    from gyoza.worker.settings import WorkerSettings


@takes(options.Policy)
def up(
    policy: options.Policy,
    host: options.Host = None,
    port: options.Port = None,
    database_url: options.DatabaseUrl = None,
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
    min_free_mb: options.MinFreeMb = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Start server and worker together; they find each other and the key.

    Ctrl-C or SIGTERM drains the worker, a second one stops what it runs; then the server ends. A
    third ends both at once and leaves what runs to the next start.
    """
    configure_logging(log_level, log_format)
    server = options.server_settings(
        host=host, port=port, database_url=database_url, log_level=log_level
    )
    worker = options.worker_settings(
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
        min_free_mb=min_free_mb,
        **policy.settings,
    )
    import trio

    tune_process(WORKER)
    trio.run(_up, server, worker, teller(log_format, "gyoza"))


async def _up(
    server: "ServerSettings", worker: "WorkerSettings", tell: Callable[[str], object]
) -> None:
    import trio

    from gyoza.server.main import start_server
    from gyoza.worker.runner.main import work_until_told

    async with trio.open_nursery() as services:
        url, key = await start_server(services, server, tell)
        settings = replace(worker, server_url=url, api_key=key)
        async with trio.open_nursery() as work:
            await work.start(partial(work_until_told, settings))
            # The log names the worker and the server has told its address: each is said once.
            tell("Ready: `gyoza run IMAGE` in another terminal; Ctrl-C ends server and worker.")
        services.cancel_scope.cancel()
