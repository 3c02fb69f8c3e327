"""Answers of a Docker Engine that a healthy one does not give, or only a newer one."""

from pathlib import Path

import pytest
import trio
import trio.testing

from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.engine import ContainerExit, ContainerSpec
from gyoza.worker.errors import EngineError, EngineUnavailable, ImagePullError
from tests.containers.bench import read_to_end
from tests.containers.scripted import BEGUN, Script, answer, unix_server

SLOW = 200
OK = answer(200, {})
GONE = answer(404, {"message": "No such container: x"})
BUSY = answer(409, {"message": "removal of container x is already in progress"})


async def test_a_refusal_is_told_in_the_engines_words(scripted: Script) -> None:
    full = answer(500, {"message": "the disk is full."})
    refused = r"^The Docker Engine failed: the disk is full\.$"
    async with scripted({b"": full}) as engine:
        with pytest.raises(EngineError, match=refused):
            await engine.kill("x")
        with pytest.raises(EngineError, match=refused):
            await engine.find_image("x")
        with pytest.raises(EngineError, match=refused):
            await engine.remove("x")


async def test_the_page_of_a_proxy_that_forbids_a_call_is_told_by_its_status(
    scripted: Script,
) -> None:
    page = b"<html><body><h1>403 Forbidden</h1>\n</body></html>\n"
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(page)
    async with scripted({b"/kill": head + page}) as engine:
        with pytest.raises(EngineError, match=r"refused: 403 Forbidden\.$"):
            await engine.kill("x")


async def test_what_an_engine_warns_of_is_in_the_log(
    scripted: Script, caplog: pytest.LogCaptureFixture
) -> None:
    created = answer(201, {"Id": "abc", "Warnings": ["no swap limit"]})
    async with scripted({b"/containers/create": created}) as engine:
        assert await engine.create(ContainerSpec(name="c", image="x")) == "abc"
    assert "warns of container c: no swap limit" in caplog.text


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


def state(status: str, exit_code: int = 0) -> bytes:
    said = {"Status": status, "ExitCode": exit_code, "OOMKilled": False, "Error": ""}
    return answer(200, {"State": said})


REFUSING = answer(500, {"message": "starting"})


@pytest.mark.parametrize(
    ("waits", "states", "unseen"),
    [
        ([OK], [state("exited", 4)], False),
        ([OK, OK], [state("running"), state("exited", 4)], False),
        ([BEGUN, OK], [state("running"), state("exited", 4)], False),
        ([REFUSING, OK], [state("exited", 4)], True),
        ([OK, OK], [REFUSING, state("exited", 4)], True),
        ([OK, OK, OK], [state("running"), REFUSING, state("exited", 4)], True),
        ([OK, OK, OK], [REFUSING, state("running"), state("running"), state("exited", 4)], False),
        ([b""], [state("exited", 4)], True),
        ([b"", OK], [state("running"), state("exited", 4)], False),
        ([BEGUN + b"2", OK], [state("running"), state("exited", 4)], True),
    ],
)
async def test_a_wait_looks_again_until_it_knows(
    scripted: Script,
    monkeypatch: pytest.MonkeyPatch,
    waits: list[bytes],
    states: list[bytes],
    unseen: bool,
) -> None:
    monkeypatch.setattr("gyoza.worker.containers.docker_wait.LOOK_AGAIN_S", 0.1)
    async with scripted({b"/wait": list(waits), b"/json": list(states)}) as engine:
        ended = await engine.wait("x")
    assert (ended.exit_code, ended.unseen) == (4, unseen)
    lost_at_some_time = unseen or REFUSING in states or b"" in waits
    assert ended.disturbed is lost_at_some_time


async def test_a_wait_that_is_not_answered_looks_all_the_same(scripted: Script) -> None:
    async with scripted({b"/json": state("exited", 4)}, deadline_s=0.1) as engine:
        assert await engine.wait("x") == ContainerExit(4, unseen=True, disturbed=True)


@pytest.mark.parametrize(
    "refusal",
    [
        answer(503, {"message": "later"}),
        answer(500, {"message": "transport is closing: unavailable"}),
        answer(500, {"message": "context canceled"}),
    ],
)
async def test_an_engine_that_goes_down_is_unavailable(scripted: Script, refusal: bytes) -> None:
    async with scripted({b"/start": refusal}) as engine:
        with pytest.raises(EngineUnavailable, match="not ready"):
            await engine.start("x")


@pytest.mark.parametrize("end", [b"", b"zz\r\n"], ids=["cut", "nonsense"])
async def test_a_log_that_breaks_off_is_not_taken_for_whole(scripted: Script, end: bytes) -> None:
    frame = b"\1\0\0\0\0\0\0\4t a\n"
    head = BEGUN + b"c\r\n" + frame + b"\r\n" + end
    async with scripted({b"/logs": head}) as engine:
        async with engine.logs("x", follow=False) as stream:
            with pytest.raises(EngineUnavailable, match="broke"):
                await read_to_end(stream)
        async with engine.logs("x", follow=True) as stream:
            await read_to_end(stream)


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
            lambda: engine.logs("x", follow=False).__aenter__(),
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
