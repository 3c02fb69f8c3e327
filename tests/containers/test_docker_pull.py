"""Pulls from a real registry, and what is told of them."""

import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing

from gyoza.demo.images import build_busybox_image
from gyoza.worker.containers.docker_engine import DockerEngine
from gyoza.worker.containers.docker_pull import PullProgress, pull_error, read_pull
from gyoza.worker.errors import ImagePullError, RegistryUnavailable
from tests.containers.daemon import push
from tests.containers.proxy import Proxy, open_proxy

SLOW = 200

LINES: list[dict[str, Any]] = [
    {"status": "Pulling from library/busybox", "id": "latest"},
    {"status": "Pulling fs layer", "id": "a"},
    {"status": "Pulling fs layer", "id": "b"},
    {"status": "Already exists", "id": "c"},
    {"status": "Downloading", "id": "a", "progressDetail": {"current": 50, "total": 100}},
    {"status": "Downloading", "id": "b", "progressDetail": {"current": 25, "total": 300}},
    {"status": "Download complete", "id": "a"},
    {"status": "Extracting", "id": "a", "progressDetail": {"current": 1, "total": 100}},
    {"status": "Pull complete", "id": "a"},
    {"status": "Digest: sha256:0"},
]


def test_progress_is_summed_up_over_the_layers() -> None:
    progress = PullProgress("busybox")
    told: list[str] = []
    for line in LINES:
        progress.update(line)
        told.append(str(progress))
    assert told == [
        "pulling busybox",
        "pulling busybox: 0 of 1 layers",
        "pulling busybox: 0 of 2 layers",
        "pulling busybox: 1 of 3 layers",
        "pulling busybox: 1 of 3 layers, 50 %",
        "pulling busybox: 1 of 3 layers, 18 %",
        "pulling busybox: 1 of 3 layers, 31 %",
        "pulling busybox: 1 of 3 layers, 31 %",
        "pulling busybox: 2 of 3 layers, 31 %",
        "pulling busybox: 2 of 3 layers, 31 %",
    ]


def test_progress_is_told_once_a_second_while_anything_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 0.1, 0.2, 0.3, 1.2, 1.3, 1.4, 2.5, 3.6, 9.9])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    told: list[str] = []
    read_pull("busybox", LINES, told.append)
    assert told == [
        "pulling busybox",
        "pulling busybox: 1 of 3 layers, 50 %",
        "pulling busybox: 1 of 3 layers, 31 %",
        "pulling busybox: 2 of 3 layers, 31 %",
        "pulling busybox: 2 of 3 layers, 31 %",  # nothing new, but it moves
        "pulled busybox",
    ]


@pytest.mark.parametrize(
    "line", [{"error": "no space left."}, {"errorDetail": {"message": "no space left"}}]
)
def test_an_error_line_fails_the_pull(line: dict[str, Any]) -> None:
    with pytest.raises(ImagePullError, match=r"^Cannot pull busybox: no space left\.$"):
        read_pull("busybox", [*LINES, line, *LINES], lambda _: None)


@pytest.mark.parametrize(
    "words",
    [
        'Get "https://x/v2/": dial tcp: lookup x on 1.1.1.1:53: no such host',
        'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
        'Get "https://x/v2/": net/http: TLS handshake timeout',
        'Get "https://x/v2/": context deadline exceeded',
        'Get "https://x/v2/": x509: certificate signed by unknown authority',
        'Get "https://x/v2/": http: server gave HTTP response to HTTPS client',
        "received unexpected HTTP status: 503 Service Unavailable",
        "failed to resolve reference: unexpected status from HEAD request: 502 Bad Gateway",
        "toomanyrequests: You have reached your pull rate limit",
        "error parsing HTTP 429 response body: no error details found",
        "error parsing HTTP 502 response body: invalid character '<'",
        "unexpected EOF",
    ],
)
def test_a_registry_that_cannot_answer_is_not_the_last_word(words: str) -> None:
    error = pull_error("example.org/op:1", words)
    assert isinstance(error, RegistryUnavailable)
    assert str(error) == f"Cannot pull example.org/op:1: {words}."


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("op", "manifest for op:latest not found: manifest unknown: manifest unknown"),
        ("op", "pull access denied for op, repository does not exist or may require login"),
        ("op", "unauthorized: authentication required"),
        ("op", "error parsing HTTP 403 response body: no error details found"),
        ("op", "no matching manifest for linux/arm64/v8 in the manifest list entries"),
        ("timeout.example.org:503/dial/tls", "manifest unknown: timeout.example.org:503/dial/tls"),
    ],
)
def test_a_registry_that_has_no_such_image_or_denies_it_has_answered(
    image: str, words: str
) -> None:
    assert type(pull_error(image, words)) is ImagePullError


def test_an_image_that_is_called_like_an_answer_is_none() -> None:
    words = "Get https://denied.example.org/v2/not-found: EOF"
    assert isinstance(pull_error("denied.example.org/not-found", words), RegistryUnavailable)


@dataclass
class Registry:
    """A registry on this machine.

    Attributes:
        port: Its port on the loopback interface.
        folder: Where it keeps what it has.
    """

    port: int
    folder: Path


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Generator[Registry]:
    """A registry that ends with the tests of this file."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs the package docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    settings = folder / "config.yml"
    settings.write_text(
        "version: 0.1\nlog: {level: info}\nhttp: {addr: '127.0.0.1:0'}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}/data'}}}}\n"
    )
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with subprocess.Popen(
        [program, "serve", str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr
        try:
            for line in process.stderr:
                if "listening on" in line:
                    port = line.partition("listening on 127.0.0.1:")[2].partition('"')[0]
                    yield Registry(int(port.split(",")[0]), folder / "data")
                    break
            else:
                pytest.fail("the registry did not start")
        finally:
            process.terminate()


@pytest.fixture
async def image_to_pull(registry: Registry, docker_engine: DockerEngine) -> AsyncGenerator[str]:
    """An image that the registry has and the engine has not, nor any of its layers."""
    image = f"127.0.0.1:{registry.port}/test-{uuid4().hex}:latest"
    await build_busybox_image(docker_engine, image, files={"unique": uuid4().bytes})
    await trio.to_thread.run_sync(push, image)
    await docker_engine.remove_image(image)
    yield image
    await docker_engine.remove_image(image)


@pytest.mark.docker
async def test_an_image_is_pulled_and_then_known_by_its_digest(
    docker_engine: DockerEngine, image_to_pull: str
) -> None:
    told: list[str] = []

    def tell(sentence: str) -> None:
        assert trio.lowlevel.in_trio_run()
        told.append(sentence)

    with trio.fail_after(SLOW):
        assert await docker_engine.find_image(image_to_pull) is None
        untagged = image_to_pull.removesuffix(":latest")
        await docker_engine.pull(untagged, tell)
        found = await docker_engine.find_image(image_to_pull)
        assert found is not None
        [digest] = found.repo_digests
        assert digest.startswith(f"{untagged}@sha256:")
        assert told[0].startswith(f"pulling {untagged}")
        assert told[-1] == f"pulled {untagged}"
        await docker_engine.pull(digest, tell)


@pytest.mark.docker
async def test_an_image_that_the_registry_does_not_have_is_an_error_in_its_words(
    docker_engine: DockerEngine, registry: Registry
) -> None:
    image = f"127.0.0.1:{registry.port}/absent"
    with trio.fail_after(SLOW), pytest.raises(ImagePullError, match="manifest unknown") as caught:
        await docker_engine.pull(image, lambda _: None)
    assert str(caught.value).startswith(f"Cannot pull {image}: ")


@pytest.mark.docker
async def test_a_layer_that_the_registry_has_lost_fails_the_pull(
    docker_engine: DockerEngine, registry: Registry, image_to_pull: str
) -> None:
    for blob in (registry.folder / "docker/registry/v2/blobs").glob("**/data"):
        if blob.stat().st_size > 100_000:
            blob.unlink()
    with trio.fail_after(SLOW), pytest.raises(ImagePullError, match="Cannot pull"):
        await docker_engine.pull(image_to_pull, lambda _: None)
    with trio.fail_after(SLOW):
        assert await docker_engine.find_image(image_to_pull) is None


@pytest.fixture
async def stuck_registry(registry: Registry) -> AsyncGenerator[Proxy]:
    """A registry that gets stuck in the middle of a layer."""
    connect = partial(trio.open_tcp_stream, "127.0.0.1", registry.port)
    async with open_proxy(connect) as proxy:
        proxy.freeze_after = 100_000
        yield proxy


@pytest.mark.docker
async def test_a_pull_that_is_cancelled_leaves_nothing_and_can_be_begun_again(
    docker_engine: DockerEngine, image_to_pull: str, registry: Registry, stuck_registry: Proxy
) -> None:
    image = image_to_pull.replace(f":{registry.port}/", f":{stuck_registry.port}/")
    with trio.fail_after(SLOW):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(docker_engine.pull, image, print)
            await stuck_registry.frozen.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(200):
            await trio.testing.wait_all_threads_completed()
        assert await docker_engine.find_image(image) is None
        stuck_registry.freeze_after = None
        stuck_registry.break_all()
        await docker_engine.pull(image, print)
        assert await docker_engine.find_image(image) is not None
        await docker_engine.remove_image(image)
