"""What one worker consists of; the loops get it as their argument."""

from dataclasses import dataclass, field

import trio

from gyoza.client import AsyncGyozaClient
from gyoza.worker.execution_pipeline.pipeline import Pipeline
from gyoza.worker.execution_pipeline.run_scope import Toolbox
from gyoza.worker.runner.active_runs import ActiveRuns
from gyoza.worker.runner.engine_watch import EngineWatch
from gyoza.worker.settings import WorkerSettings
from gyoza.worker.worker_context import WorkerContext


@dataclass
class Worker:
    """One worker.

    Attributes:
        tools: What the runs work with.
        pipeline: What a run goes through.
        context: What heartbeats tell of this worker.
        heartbeats: The heartbeats' own client: they wait behind nothing else.
        active: The runs it has.
        draining: Set by the first signal: no new claims.
        engine_watch: Whether the engine answers.
        beat_now: Set to send a heartbeat before its time.
    """

    tools: Toolbox
    pipeline: Pipeline
    context: WorkerContext
    heartbeats: AsyncGyozaClient
    active: ActiveRuns
    engine_watch: EngineWatch
    draining: trio.Event = field(default_factory=trio.Event)
    beat_now: trio.Event = field(default_factory=trio.Event)

    @property
    def settings(self) -> WorkerSettings:
        """The worker's settings."""
        return self.tools.settings

    @property
    def client(self) -> AsyncGyozaClient:
        """The client for everything but heartbeats."""
        return self.tools.client

    def drain(self) -> None:
        """Claim no more, and tell the server so at once."""
        self.draining.set()
        self.beat_now.set()
