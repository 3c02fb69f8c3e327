"""What one worker consists of; the loops get it as their argument."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from gyoza.client import AsyncGyozaClient
from gyoza.worker.containers.labels import server_name
from gyoza.worker.execution_pipeline.pipeline import Pipeline
from gyoza.worker.execution_pipeline.run_scope import Toolbox
from gyoza.worker.runner.active_runs import ActiveRuns
from gyoza.worker.runner.disk_watch import DiskWatch
from gyoza.worker.runner.engine_watch import EngineWatch
from gyoza.worker.runner.leaving import leave_now
from gyoza.worker.runner.readiness import Readiness
from gyoza.worker.runner.shortage import Shortage
from gyoza.worker.runner.work_dir import Instance
from gyoza.worker.server_contact import ServerContact
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import WorkerContext

BEATS_A_LEASE = 4
"""Heartbeats within a lease, whatever is set."""


@dataclass
class Worker:
    """One worker.

    Attributes:
        tools: What the runs work with.
        instance: This start of it.
        pipeline: What a run goes through.
        context: What heartbeats tell of this worker.
        heartbeats: The heartbeats' own client: they wait behind nothing else.
        active: The runs it has.
        readiness: Whether anything stands in the way of claims.
        engine_watch: Whether the engine answers.
        disk_watch: Whether there is room on the disks.
        shortage: Whether runs were given back for what the worker lacks.
        engine_trouble: Whether they were since the engine fails.
        ready: Set once it is registered and about to claim.
        claimed: Set when the next run has been claimed.
        draining: Set when it claims no more.
        leaving: Set by the first signal: its runs have the drain timeout to finish.
        beat_now: Set to send a heartbeat before its time.
        beating: Held while a heartbeat is sent: they reach the server in order.
        leave_now: Ends the process at once with an exit code; what runs here runs on.
    """

    tools: Toolbox
    instance: Instance
    pipeline: Pipeline
    context: WorkerContext
    heartbeats: AsyncGyozaClient
    active: ActiveRuns
    readiness: Readiness
    engine_watch: EngineWatch
    disk_watch: DiskWatch
    shortage: Shortage
    engine_trouble: Shortage
    ready: trio.Event = field(default_factory=trio.Event)
    claimed: trio.Event = field(default_factory=trio.Event)
    draining: trio.Event = field(default_factory=trio.Event)
    leaving: trio.Event = field(default_factory=trio.Event)
    beat_now: trio.Event = field(default_factory=trio.Event)
    beating: trio.Lock = field(default_factory=trio.Lock)
    leave_now: Callable[[int], None] = leave_now

    @property
    def settings(self) -> WorkerSettings:
        """The worker's settings."""
        return self.tools.settings

    @property
    def contact(self) -> ServerContact:
        """What is known of the server."""
        return self.tools.contact

    @property
    def heartbeat_s(self) -> float:
        """Seconds from one heartbeat to the next: as set, but several go within a lease."""
        named = self.contact.lease_s / BEATS_A_LEASE if self.contact.names_lease else math.inf
        return min(self.settings.heartbeat_s, named)

    @property
    def client(self) -> AsyncGyozaClient:
        """The client for everything but heartbeats."""
        return self.tools.client

    @property
    def server(self) -> str:
        """The name of its server, as containers carry it."""
        return server_name(self.client.connection.url)

    def note_claimed(self) -> None:
        """Wake who waits for a run to be claimed."""
        self.claimed.set()
        self.claimed = trio.Event()

    def stop_claiming(self) -> None:
        """Claim no more, tell the server so at once, and end with the last run."""
        self.draining.set()
        self.beat_now.set()

    def drain(self) -> None:
        """Claim no more, and end with the last run or at the drain deadline."""
        self.leaving.set()
        self.stop_claiming()
