"""How a worker is really deployed: as a process, with signals, over TLS, with small servers."""

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from gyoza.server.settings import ServerSettings
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.labels import of_worker
from gyoza.worker.runner import main
from gyoza.worker.runner.supervisor import run_worker
from gyoza.worker.runner.worker import Worker
from gyoza.worker.settings import WorkerSettings
from tests.e2e.conftest import KEY, OpenSystem
from tests.support.small_server import SmallServer, open_small_server

pytestmark = pytest.mark.docker

OUTPUT = 'echo "{\\"ok\\": true}" > "$GYOZA_OUTPUT_PATH"'


async def test_the_whole_way_works_over_tls(
    open_system: OpenSystem, busybox_image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    server = ServerSettings(
        port=0,
        database_url=f"sqlite:///{tmp_path}/server.sqlite3",
        api_key=KEY,
        tls_certfile=str(tmp_path / "server.pem"),
        tls_keyfile=str(tmp_path / "server.pem"),
    )
    with trio.fail_after(200):
        async with open_system(server) as system:
            run_id = await system.run(busybox_image, command=["sh", "-c", OUTPUT])
            run = await system.end_of(run_id)
    assert system.url.startswith("https://")
    assert (run["state"], run["outputs"]) == ("COMPLETED", {"ok": True})


async def test_a_small_server_is_enough_for_real_containers(
    busybox_image: str, tmp_path: Path
) -> None:
    with trio.fail_after(200):
        async with open_small_server() as server, trio.open_nursery() as nursery:
            settings = WorkerSettings(
                server_url=server.url,
                worker_id="test-small",
                work_dir=tmp_path / "work",
                grace_s=0,
            )
            for run_id in ("run-1", "run-2"):
                command = ["sleep", "60"] if run_id == "run-2" else ["sh", "-c", OUTPUT]
                server.submit(run_id, busybox_image, command=command)

            async def work(task_status: trio.TaskStatus[Worker]) -> None:
                await run_worker(settings, task_status=task_status)

            worker: Worker = await nursery.start(work)
            completed = await server.wait_for_event("COMPLETED", "run-1")
            await server.wait_for_event("STARTED", "run-2")
            server.cancel("run-2")
            await worker.active.wait_until_gone("run-2")
            worker.drain()
    assert completed["payload"] == {"ok": True}
    assert not [e for e in server.events if e["type"] == "FAILED"]
    async with open_docker_engine() as engine:
        assert await engine.list(of_worker("test-small")) == []


async def test_a_worker_process_drains_at_the_first_signal_and_exits_with_0(
    busybox_image: str, tmp_path: Path
) -> None:
    environment = os.environ | {
        "GYOZA_API_KEY": "key",
        "GYOZA_WORKER_ID": "test-process",
        "GYOZA_WORK_DIR": str(tmp_path / "work"),
        "XDG_DATA_HOME": str(tmp_path),
    }
    script = "import gyoza.worker; gyoza.worker.start()"
    with trio.fail_after(200):
        async with open_small_server() as server, trio.open_nursery() as nursery:
            command = ["sh", "-c", "while ! test -e /gyoza/go; do sleep 0.05; done"]
            server.submit("run-1", busybox_image, command=command)
            environment["GYOZA_SERVER_URL"] = server.url
            process: trio.Process = await nursery.start(
                partial(trio.run_process, [sys.executable, "-c", script], env=environment)
            )
            await server.wait_for_event("STARTED", "run-1")
            process.send_signal(signal.SIGTERM)
            await server.wait_until(lambda: server.heartbeats[-1]["draining"])
            (tmp_path / "work" / "test-process" / "run-1.1" / "gyoza" / "go").touch()
            assert await process.wait() == 0
    assert server.runs["run-1"]["state"] == "COMPLETED"
    assert server.heartbeats[-1]["running_ops"] == []


def test_run_returns_the_exit_code_after_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    ready, stop = threading.Event(), trio.Event()
    urls: list[str] = []
    tokens: list[trio.lowlevel.TrioToken] = []

    async def serve_and_signal() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        async with open_small_server() as server:
            urls.append(server.url)
            ready.set()
            await _signal_when_registered(server)
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(serve_and_signal,))
    thread.start()
    ready.wait(60)
    try:
        settings = WorkerSettings(server_url=urls[0], worker_id="test-run", work_dir=tmp_path)
        assert main.run(settings) == 0
    finally:
        tokens[0].run_sync_soon(stop.set)
        thread.join(60)


async def _signal_when_registered(server: SmallServer) -> None:
    await server.wait_until(lambda: "POST /workers/test-run/claim" in server.requests)
    signal.raise_signal(signal.SIGTERM)
