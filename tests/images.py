"""The images that tests run containers of; built once, and found again by the next session."""

import pytest
import trio

from gyoza.demo.images import build_busybox_image, build_python_image
from gyoza.worker.containers.docker_engine import open_docker_engine

BUSYBOX = "gyoza-test-busybox:latest"
PYTHON = "gyoza-test-python:latest"


@pytest.fixture(scope="session")
def busybox_image() -> str:
    """The name of an image with a shell."""

    async def build() -> None:
        async with open_docker_engine() as engine:
            await build_busybox_image(engine, BUSYBOX)

    trio.run(build)
    return BUSYBOX


@pytest.fixture(scope="session")
def python_image() -> str:
    """The name of an image with Python, and `gyoza.op` in it as `gyoza_op`."""

    async def build() -> None:
        async with open_docker_engine() as engine:
            await build_python_image(engine, PYTHON)

    trio.run(build)
    return PYTHON
