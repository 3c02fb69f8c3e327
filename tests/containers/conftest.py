"""Engines for the tests of this folder."""

from collections.abc import AsyncGenerator

import pytest

from gyoza.testing import open_fake_engine
from gyoza.worker.containers.docker_engine import DockerEngine, open_docker_engine
from tests.containers.bench import Bench, add_images
from tests.images import busybox_image, python_image

__all__ = ["busybox_image", "python_image"]


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
