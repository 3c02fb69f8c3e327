"""A real server in a thread, and somebody who plays the worker for it."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import trio

from gyoza.client import GyozaClient
from gyoza.models import EventType, OpRun
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings

KEY = "secret"


@contextmanager
def live_server(directory: Path) -> Generator[str]:
    """Serve on a free port and yield the URL; the key is `KEY`."""
    started: Queue[tuple[str, trio.lowlevel.TrioToken, trio.CancelScope]] = Queue()
    settings = ServerSettings(
        port=0, database_url=f"sqlite:///{directory}/gyoza.sqlite3", api_key=KEY
    )

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve, settings)
            started.put((url, trio.lowlevel.current_trio_token(), nursery.cancel_scope))

    thread = Thread(target=trio.run, args=(main,))
    thread.start()
    url, token, scope = started.get(timeout=60)
    try:
        yield url
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(timeout=60)


class PlayedWorker:
    """Claims runs and reports whatever a test wants of them, as a worker would."""

    def __init__(self, client: GyozaClient, worker_id: str, tags: list[str]) -> None:
        self.client = client
        self.id = worker_id
        self.client.heartbeat(worker_id, {"cpu_cores": 2, "ram_mb": 2048, "gpus": []}, tags)
        self._offset = 0

    def claim(self) -> OpRun:
        """Claim a run; waits for one."""
        (run,) = self.client.claim(self.id, wait_s=10)
        self._offset = 0
        return OpRun.from_dict(run)

    def start(self) -> OpRun:
        """Claim a run and report it as started."""
        run = self.claim()
        self.report(run, EventType.STARTED, "started")
        return run

    def report(
        self, run: OpRun, event: EventType, msg: str | int, payload: dict[str, Any] | None = None
    ) -> None:
        """Report an event of the claimed attempt."""
        self.client.add_event(
            run.id, event, msg, payload, worker_id=self.id, attempt=run.current_attempt
        )

    def log(self, run: OpRun, text: str) -> None:
        """Append to the log of the claimed attempt."""
        self.client.append_logs(
            run.id, self._offset, text, worker_id=self.id, attempt=run.current_attempt
        )
        self._offset += len(text.encode())

    def fail(self, run: OpRun, why: str) -> None:
        """Report the attempt as failed."""
        payload = {"reason": "EXIT_CODE", "error_message": why, "exit_code": 3}
        self.report(run, EventType.FAILED, why, payload)


@contextmanager
def played_worker(
    url: str, worker_id: str = "w1", tags: tuple[str, ...] = ()
) -> Generator[PlayedWorker]:
    """Register a worker with two cores and 2 GB."""
    with GyozaClient(url, KEY) as client:
        yield PlayedWorker(client, worker_id, list(tags))
