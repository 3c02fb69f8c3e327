from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

from gyoza.client import AsyncGyozaClient, GyozaClient, credentials

from .scripted import Answer, Scripted, scripted_server

PROXIES = [
    variable
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for variable in (name, name.upper())
]


class Send(Protocol):
    """Calls a method by name on the client under test."""

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server(Answer()) as script:
        yield script


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a key, a server or a data directory."""
    for name in ("SERVER_URL", "API_KEY", "API_KEY_FILE", "CA_FILE", "CLIENT_CERT", "CLIENT_KEY"):
        monkeypatch.delenv(f"GYOZA_{name}", raising=False)
    for name in ("CREDENTIALS_DIRECTORY", *PROXIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return credentials.data_dir()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once: the waits are drawn from here."""

    def none(_low: float, _high: float) -> float:
        return 0.0

    monkeypatch.setattr("random.uniform", none)


@pytest.fixture(params=["blocking", "trio"])
async def send(
    request: pytest.FixtureRequest, server: Scripted, impatient: None
) -> AsyncIterator[Send]:
    """Both clients, one after the other, with the key `secret`."""

    def blocking(method: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return trio.to_thread.run_sync(lambda: getattr(client, method)(*args, **kwargs))

    def on_trio(method: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return getattr(async_client, method)(*args, **kwargs)

    with GyozaClient(server.url, "secret") as client:
        async with AsyncGyozaClient(server.url, "secret") as async_client:
            yield blocking if request.param == "blocking" else on_trio
