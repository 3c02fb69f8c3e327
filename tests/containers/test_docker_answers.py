"""Answers of a Docker Engine that a healthy one does not give, or only a newer one."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from gyoza.worker.containers.docker_engine import DockerEngine, open_docker_engine
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.errors import EngineError, EngineUnavailable, ImagePullError
from tests.containers.scripted import VERSION, answer, unix_server

SLOW = 20
OK = answer(200, {})
GONE = answer(404, {"message": "No such container: x"})
BUSY = answer(409, {"message": "removal of container x is already in progress"})

Script = Callable[..., AbstractAsyncContextManager[DockerEngine]]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    """Opens an engine that gives the answers of a table."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")

    @asynccontextmanager
    async def open_scripted(
        answers: dict[bytes, bytes | list[bytes]], deadline_s: float = 30
    ) -> AsyncGenerator[DockerEngine]:
        with trio.fail_after(SLOW):
            async with (
                unix_server(path, {**VERSION, **answers}),
                open_docker_engine(deadline_s=deadline_s) as engine,
            ):
                yield engine

    return open_scripted


async def test_a_refusal_is_told_in_the_engines_words(scripted: Script) -> None:
    full = answer(500, {"message": "the disk is full."})
    refused = r"^The Docker Engine refused: the disk is full\.$"
    async with scripted({b"": full}) as engine:
        with pytest.raises(EngineError, match=refused):
            await engine.kill("x")
        with pytest.raises(EngineError, match=refused):
            await engine.find_image("x")
        with pytest.raises(EngineError, match=refused):
            await engine.remove("x")


async def test_gpus_without_the_toolkit_say_what_to_install(scripted: Script) -> None:
    words = 'could not select device driver "" with capabilities: [[gpu]]'
    async with scripted({b"/start": answer(500, {"message": words})}) as engine:
        with pytest.raises(EngineError, match="install the NVIDIA container toolkit"):
            await engine.start("x")


@pytest.mark.parametrize(
    ("removals", "waits"),
    [([BUSY, GONE], OK), ([BUSY, BUSY, OK], OK), ([BUSY], GONE)],
    ids=["gone after the wait", "the other gave up", "gone before the wait"],
)
async def test_a_removal_under_way_is_waited_for(
    scripted: Script, removals: list[bytes], waits: bytes
) -> None:
    answers = {b"DELETE": list(removals), b"/wait?condition=removed": waits}
    async with scripted(answers) as engine:
        await engine.remove("x")
    assert answers[b"DELETE"] == []


async def test_a_wait_looks_again_while_the_engine_refuses(scripted: Script) -> None:
    refusing = answer(500, {"message": "starting"})
    ended = {"Status": "exited", "ExitCode": 4, "OOMKilled": False, "Error": ""}
    answers: dict[bytes, bytes | list[bytes]] = {
        b"/wait": [refusing, OK, OK],
        b"/json": [refusing, answer(200, {"State": ended})],
    }
    async with scripted(answers) as engine:
        assert (await engine.wait("x")).exit_code == 4


@pytest.mark.parametrize(("origin", "pulled"), [(None, True), ("Build", False), ("Pull", True)])
async def test_the_digests_of_an_image_that_was_built_are_not_counted(
    scripted: Script, origin: str | None, pulled: bool
) -> None:
    image: dict[str, object] = {"Id": "sha256:1", "RepoDigests": ["x@sha256:1"]}
    if origin is not None:  # older engines do not say
        image["Identity"] = {origin: [{"Repository": "x"}]}
    async with scripted({b"/images/": answer(200, image)}) as engine:
        found = await engine.find_image("x")
    assert found is not None
    assert bool(found.repo_digests) is pulled


async def test_every_kind_of_call_has_a_deadline(scripted: Script) -> None:
    async with scripted({}, deadline_s=0.05) as engine:
        for call in (
            lambda: engine.create(ContainerSpec(name="x", image="y")),
            lambda: engine.start("x"),
            lambda: engine.list({}),
            lambda: engine.ask_to_stop("x"),
            lambda: engine.remove("x"),
            lambda: engine.attach("x").__aenter__(),
        ):
            with pytest.raises(EngineUnavailable, match="did not answer within"):
                await call()
        await trio.testing.wait_all_threads_completed()


@pytest.mark.parametrize("image", ["http://registry/x", "-registry.example/x"])
async def test_an_image_that_cannot_be_one_cannot_be_pulled(scripted: Script, image: str) -> None:
    async with scripted({}) as engine:
        with pytest.raises(ImagePullError, match=f"Cannot pull {image}: "):
            await engine.pull(image, print)


async def test_an_engine_that_comes_later_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    info = {"ApiVersion": "1.41", "ServerVersion": "9", "DockerRootDir": "/r"}
    with trio.fail_after(SLOW):
        async with open_docker_engine() as engine:
            with pytest.raises(EngineUnavailable):
                await engine.info()
            async with unix_server(path, {b"": answer(200, info)}):
                assert (await engine.info()).version == "9"
