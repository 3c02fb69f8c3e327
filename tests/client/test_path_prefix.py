"""A server that a reverse proxy shows under a path: https://host/gyoza."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
import trio

from gyoza.cli.main import main
from gyoza.client import ApiError, AsyncGyozaClient, GyozaClient
from tests.server.api import KEY, Api, serving, settings_in

from .relay import relaying


@pytest.fixture
async def api(tmp_path: Path) -> AsyncGenerator[Api]:
    async with serving(settings_in(tmp_path)) as api:
        yield api


@pytest.fixture(params=["/gyoza", "/gyoza/", "/a/b"])
async def url(request: pytest.FixtureRequest, api: Api) -> AsyncGenerator[str]:
    path: str = request.param
    async with relaying(api.url, path.rstrip("/")) as relay:
        yield relay.url + "/" * path.endswith("/")


async def in_thread(call: Callable[[], object]) -> object:
    with trio.fail_after(200):
        return await trio.to_thread.run_sync(call)


async def test_the_client_for_trio_finds_it(api: Api, url: str) -> None:
    async with AsyncGyozaClient(url, KEY) as client:
        run = (await client.create_run("image", {}))["id"]
        await client.add_event(run, "STARTED", "go")
        await client.append_logs(run, 0, "text\n")
        await client.add_event(run, "COMPLETED", "done", {})
        assert await client.get_logs(run) == "text\n"
        with pytest.raises(ApiError, match="no run"):
            await client.get_run("another")


async def test_the_blocking_client_finds_it(api: Api, url: str) -> None:
    run = await api.submit()
    with GyozaClient(url, KEY) as client:
        assert await in_thread(lambda: client.get_run(run)["id"]) == run
        assert await in_thread(lambda: client.cancel_run(run)["state"]) == "CANCELLED"
        assert await in_thread(lambda: list(client.follow_logs(run))) == []


async def test_the_commands_find_it(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", url)
    monkeypatch.setenv("GYOZA_API_KEY", KEY)
    run = await api.running()
    await api.post(f"/runs/{run}/logs", {"offset": 0, "data": "text\n"})
    await api.event(run, "COMPLETED", worker_id="w1", attempt=1)
    assert await in_thread(lambda: main(["runs", "show", run])) == 0
    assert await in_thread(lambda: main(["runs", "logs", "--follow", run])) == 0
    assert capsys.readouterr().out.endswith("text\n")
