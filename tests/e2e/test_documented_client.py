"""The documentation's example of the client: a heartbeat from the worker context."""

from functools import partial
from pathlib import Path

import pytest
import trio

from gyoza.client import GyozaClient
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from gyoza.worker.worker_context import worker_context


async def test_the_documented_heartbeat_registers_this_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServerSettings(port=0, database_url=f"sqlite:///{tmp_path}/db", api_key="key")
    monkeypatch.setattr(worker_context, "worker_id", "documented")
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(serve, settings)
            monkeypatch.setenv("GYOZA_SERVER_URL", url)
            monkeypatch.setenv("GYOZA_API_KEY", "key")
            payload = worker_context.to_heartbeat_payload()
            with GyozaClient(None) as client:  # as `gyoza_client` is made
                answer = await trio.to_thread.run_sync(partial(client.heartbeat, **payload))
                worker = await trio.to_thread.run_sync(client.get_worker, "documented")
            nursery.cancel_scope.cancel()
    assert answer == {"lease_s": 60, "states": {}, "drain": False}
    assert worker["resources"]["cpu_cores"] == worker_context.resources.cpu_cores
