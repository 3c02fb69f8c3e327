"""A deployment in which nobody is trusted with more than he needs, on a real engine."""

import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio

from gyoza.client import AsyncGyozaClient, ServerUnreachable
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings
from tests.e2e.conftest import KEY, OpenSystem
from tests.support.authority import Authority
from tests.support.chatty_op import chatty
from tests.support.deployment import Deployment, open_deployment

pytestmark = pytest.mark.docker


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncGenerator[Deployment]:
    """A server, and a worker that is not yet started."""
    settings = ServerSettings(port=0, database_url=f"sqlite:///{tmp_path}/db", api_key=KEY)
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve, settings)
        async with open_deployment(url, KEY, tmp_path) as deployment:
            yield deployment
        nursery.cancel_scope.cancel()


async def test_a_worker_with_a_key_for_itself_alone_does_its_work_and_takes_it_up_again(
    deployment: Deployment, busybox_image: str
) -> None:
    with trio.fail_after(200):
        made = await deployment.client.create_key("worker", "worker", worker=deployment.worker_id)
        run_id = await deployment.submit(busybox_image, chatty(2, 4000))
        await deployment.start(GYOZA_API_KEY=made["key"])
        await deployment.until(run_id, "INFO", "to 4000")
        await deployment.kill()
        await deployment.start(GYOZA_API_KEY=made["key"])
        run = await deployment.ended_whole(run_id, 2, 4000)
    assert run["state"] == "COMPLETED"
    assert made["key"] not in deployment.log.read_text()


async def test_server_worker_and_client_show_each_other_certificates(
    open_system: OpenSystem, busybox_image: str, tmp_path: Path
) -> None:
    servers, clients = Authority(tmp_path / "servers"), Authority(tmp_path / "clients")
    own, worker = servers.issue("127.0.0.1"), clients.issue("worker")
    settings = ServerSettings(
        port=0,
        database_url=f"sqlite:///{tmp_path}/server.sqlite3",
        api_key=KEY,
        tls_certfile=own.cert,
        tls_keyfile=own.key,
        tls_client_ca=clients.ca_file,
    )
    known = ssl.create_default_context(cafile=servers.ca_file)
    person = clients.issue("person")
    known.load_cert_chain(person.cert, person.key)
    stranger = ssl.create_default_context(cafile=servers.ca_file)
    files = {
        "ca_file": servers.ca_file,
        "client_cert": worker.cert,
        "client_key": worker.key,
    }
    with trio.fail_after(200):
        async with open_system(settings, known, **files) as system:
            run = await system.end_of(await system.run(busybox_image, command=["true"]))
            assert run["state"] == "COMPLETED"
            async with AsyncGyozaClient(system.url, KEY, verify=stranger) as client:
                with pytest.raises(ServerUnreachable, match="certificate"):
                    await client.health()
