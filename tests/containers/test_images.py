"""Images that are built from what this machine has."""

from uuid import uuid4

import pytest
import trio

from gyoza.demo.images import (
    HASH_LABEL,
    ImageBuildError,
    build_busybox_image,
    build_python_image,
)
from gyoza.worker.containers.docker_engine import DockerEngine
from gyoza.worker.containers.engine import ContainerSpec
from tests.containers.bench import demultiplexed, read_to_end

SLOW = 200

IMPORTS = """
import bz2, ctypes, decimal, gyoza_op, hashlib, json, lzma, sqlite3, ssl, sys, zlib
print(open("/greeting").read(), sys.version_info[:2])
"""


async def output_of(engine: DockerEngine, image: str, *command: str) -> bytes:
    spec = ContainerSpec(
        name=f"gyoza-test-{uuid4().hex}", image=image, command=list(command) or None
    )
    container_id = await engine.create(spec)
    try:
        async with engine.attach(container_id) as stream:
            await engine.start(container_id)
            return demultiplexed(await read_to_end(stream))[0]
    finally:
        with trio.move_on_after(30, shield=True):
            await engine.remove(container_id)


@pytest.mark.docker
async def test_the_python_image_has_this_python_its_library_and_the_op_helper(
    docker_engine: DockerEngine,
) -> None:
    image = f"gyoza-test-{uuid4().hex}:latest"
    with trio.fail_after(SLOW):
        try:
            await build_python_image(
                docker_engine,
                image,
                files={"/greeting": b"hello", "/main.py": IMPORTS.encode()},
                command=["python", "/main.py"],
            )
            assert (await output_of(docker_engine, image)).startswith(b"hello (3, ")
        finally:
            with trio.move_on_after(30, shield=True):
                await docker_engine.remove_image(image)
        await docker_engine.remove_image(image)


@pytest.mark.docker
async def test_an_image_is_built_again_only_when_its_content_differs(
    docker_engine: DockerEngine,
) -> None:
    image = f"gyoza-test-{uuid4().hex}:latest"
    with trio.fail_after(SLOW):
        try:
            await build_busybox_image(docker_engine, image, files={"/a": b"1"})
            first = await docker_engine.find_image(image)
            assert HASH_LABEL in await docker_engine.image_labels(image)
            await build_busybox_image(docker_engine, image, files={"/a": b"1"})
            assert await docker_engine.find_image(image) == first
            await build_busybox_image(docker_engine, image, files={"/a": b"2"})
            assert await docker_engine.find_image(image) != first
            assert await output_of(docker_engine, image, "cat", "/a") == b"2"
        finally:
            with trio.move_on_after(30, shield=True):
                await docker_engine.remove_image(image)


async def test_without_busybox_a_sentence_says_what_to_install(
    docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ImageBuildError, match="install the package busybox-static"):
        await build_busybox_image(docker_engine, "x")
