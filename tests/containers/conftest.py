"""Engines for the tests of this folder."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gyoza.testing import open_fake_engine
from gyoza.worker.containers.docker_engine import DockerEngine, open_docker_engine
from tests.containers.bench import Bench, add_images
from tests.containers.daemon import connect_to_engine
from tests.containers.proxy import Proxy, open_proxy
from tests.containers.scripted import VERSION, Answers, Script, unix_server
from tests.images import busybox_image, python_image

__all__ = ["busybox_image", "python_image"]

SLOW = 200


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def shell_image(request: pytest.FixtureRequest) -> str | None:
    """The image for the real engine; None for the fake."""
    return None if request.param == "fake" else request.getfixturevalue("busybox_image")


@pytest.fixture
async def bench(shell_image: str | None) -> AsyncGenerator[Bench]:
    """The fake and the real engine in turn."""
    if shell_image is None:
        async with open_fake_engine() as fake:
            add_images(fake)
            yield Bench(fake, None)
    else:
        async with open_docker_engine() as engine:
            yield Bench(engine, shell_image)


@pytest.fixture
async def docker_engine() -> AsyncGenerator[DockerEngine]:
    """The real engine."""
    async with open_docker_engine() as engine:
        yield engine


@pytest.fixture
def docker_bench(docker_engine: DockerEngine, busybox_image: str) -> Bench:
    """The real engine with the shell's image."""
    return Bench(docker_engine, busybox_image)


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Proxy]:
    """A relay to the engine, to which DOCKER_HOST points."""
    async with open_proxy(connect_to_engine) as proxy:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{proxy.port}")
        yield proxy


@pytest.fixture
async def bench_behind_proxy(proxy: Proxy, busybox_image: str) -> AsyncGenerator[Bench]:
    """The real engine by way of the relay."""
    async with open_docker_engine(deadline_s=5) as engine:
        yield Bench(engine, busybox_image)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    """Opens an engine that gives the answers of a table."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")

    @asynccontextmanager
    async def open_scripted(
        answers: Answers, deadline_s: float = 30
    ) -> AsyncGenerator[DockerEngine]:
        with trio.fail_after(SLOW):
            async with (
                unix_server(path, {**VERSION, **answers}),
                open_docker_engine(deadline_s=deadline_s) as engine,
            ):
                yield engine

    return open_scripted
