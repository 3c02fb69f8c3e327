"""What only a real Docker Engine can show."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.docker_requests import container_body
from gyoza.worker.containers.engine import ContainerEngine, ContainerExit, ContainerSpec
from gyoza.worker.errors import ContainerNotFound, EngineUnavailable
from tests.containers.bench import MANY, Bench
from tests.containers.daemon import connect_to_engine, inspect
from tests.containers.proxy import Proxy, open_proxy

SLOW = 200


async def waits_and_reads_that_are_cancelled_leave_no_thread(
    engine: ContainerEngine, container_id: str
) -> None:
    async with engine.attach(container_id) as stream:
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(engine.wait, container_id)
                nursery.start_soon(stream.receive)
        with trio.fail_after(200):
            await trio.testing.wait_all_threads_completed()


@pytest.mark.docker
async def test_a_container_that_runs_holds_no_thread(docker_bench: Bench) -> None:
    engine = docker_bench.engine
    with trio.fail_after(SLOW):
        async with (
            docker_bench.created("sleeps") as container_id,
            engine.attach(container_id) as stream,
            trio.open_nursery() as nursery,
        ):
            await engine.start(container_id)
            nursery.start_soon(engine.wait, container_id)
            assert b"ready" in await stream.receive()
            nursery.start_soon(stream.receive)
            await trio.testing.wait_all_threads_completed()
            assert (await trio.to_thread.run_sync(inspect, container_id))["State"]["Running"]
            nursery.cancel_scope.cancel()


@pytest.mark.docker
async def test_limits_labels_and_init_reach_the_engine(docker_bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with docker_bench.created(
            "sleeps", cpu=0.5, ram_mb=64, labels={"gyoza.test": "limits"}
        ) as container_id:
            found = await trio.to_thread.run_sync(inspect, container_id)
    host = found["HostConfig"]
    assert host["NanoCpus"] == 500_000_000
    assert host["Memory"] == host["MemorySwap"] == 64 * 1024 * 1024
    assert host["Init"] is True
    assert host["AutoRemove"] is False
    assert host["LogConfig"] == {
        "Type": "local",
        "Config": {"max-size": "500m", "max-file": "2", "compress": "false"},
    }
    assert found["Config"]["Labels"]["gyoza.test"] == "limits"


def test_a_volume_is_a_path_of_the_host_or_a_name() -> None:
    body = container_body(
        ContainerSpec(name="x", image="y", volumes={"/a:b": "/data", "cache": "/cache"})
    )
    assert [(m["Type"], m["Source"], m["ReadOnly"]) for m in body["HostConfig"]["Mounts"]] == [
        ("bind", "/a:b", False),
        ("volume", "cache", False),
    ]


@pytest.mark.docker
async def test_cancelled_waits_and_reads_leave_no_thread(docker_bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with docker_bench.running("sleeps") as container_id:
            await waits_and_reads_that_are_cancelled_leave_no_thread(
                docker_bench.engine, container_id
            )


@pytest.mark.docker
async def test_an_engine_is_spoken_to_over_tcp(bench_behind_proxy: Bench) -> None:
    with trio.fail_after(SLOW):
        ended, stdout, _ = await bench_behind_proxy.run("writes-much")
    assert (ended, stdout) == (ContainerExit(0), MANY)


@pytest.mark.docker
async def test_an_engine_is_spoken_to_over_tls(
    monkeypatch: pytest.MonkeyPatch, busybox_image: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    configure: Any = authority  # trustme leaves a type of these two open
    configure.issue_cert("127.0.0.1").configure_cert(server)
    configure.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    certificate = authority.issue_cert("worker@example.org")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with trio.fail_after(SLOW):
        async with open_proxy(connect_to_engine, server) as proxy:
            monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{proxy.port}")
            async with open_docker_engine(deadline_s=10) as engine:
                bench = Bench(engine, busybox_image)
                ended, stdout, _ = await bench.run("writes-much")
                async with bench.running("sleeps") as container_id:
                    await waits_and_reads_that_are_cancelled_leave_no_thread(engine, container_id)
            monkeypatch.delenv("DOCKER_TLS_VERIFY")
            monkeypatch.delenv("DOCKER_CERT_PATH")
            async with open_docker_engine() as engine:
                with pytest.raises(EngineUnavailable, match=f"{proxy.port} broke|wants TLS"):
                    await engine.info()
    assert (ended, stdout) == (ContainerExit(0), MANY)


@pytest.mark.docker
async def test_a_create_that_is_under_way_is_not_cancelled(
    bench_behind_proxy: Bench, proxy: Proxy
) -> None:
    engine = bench_behind_proxy.engine
    container_id = ""
    sent = proxy.watch(b"/containers/create")
    with trio.fail_after(SLOW), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await sent.wait()
                scope.cancel()

            nursery.start_soon(cancel)
            container_id = await engine.create(bench_behind_proxy.spec("sleeps"))
    assert scope.cancel_called
    assert container_id
    with trio.fail_after(SLOW):
        await engine.remove(container_id)


@pytest.mark.docker
async def test_a_wait_goes_on_when_its_connection_breaks(
    bench_behind_proxy: Bench, proxy: Proxy
) -> None:
    engine = bench_behind_proxy.engine

    async def wait(container_id: str) -> None:
        exited = await engine.wait(container_id)  # unseen, if it ends before the engine takes this
        assert (exited.exit_code, exited.disturbed) == (137, True)

    with trio.fail_after(SLOW):
        async with (
            bench_behind_proxy.running("sleeps") as container_id,
            trio.open_nursery() as nursery,
        ):
            first = proxy.watch(b"/wait")
            nursery.start_soon(wait, container_id)
            await first.wait()
            again = proxy.watch(b"/wait")
            proxy.break_all()
            await again.wait()
            await engine.kill(container_id)


@pytest.mark.docker
async def test_a_stream_whose_connection_breaks_ends(
    bench_behind_proxy: Bench, proxy: Proxy
) -> None:
    with trio.fail_after(SLOW):
        async with (
            bench_behind_proxy.created("sleeps") as container_id,
            bench_behind_proxy.engine.attach(container_id) as stream,
        ):
            proxy.break_all()
            assert await stream.receive() == b""


@pytest.mark.docker
async def test_removals_that_meet_wait_for_the_one_under_way(docker_bench: Bench) -> None:
    """The engine refuses the second with a conflict while the first waits for its disk."""
    engine = docker_bench.engine
    with trio.fail_after(SLOW):
        for _ in range(5):
            async with (
                docker_bench.running("ignores-stop") as container_id,
                trio.open_nursery() as nursery,
            ):
                for _ in range(8):
                    nursery.start_soon(engine.remove, container_id)
            with pytest.raises(ContainerNotFound):
                await engine.wait(container_id)
