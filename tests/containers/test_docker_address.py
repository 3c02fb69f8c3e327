"""Where the engine is, by the variables and contexts of `docker`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import trio

from gyoza.worker.containers.docker_address import DEFAULT_HOST, engine_address
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.errors import PolicyRefused, SettingsError
from tests.containers.scripted import VERSION, answer, unix_server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `docker`'s own files."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    return tmp_path


def context(folder: Path, name: str, **endpoint: Any) -> Path:
    """Make a context; return the folder of its certificates."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": endpoint}}))
    return folder / "contexts" / "tls" / key / "docker"


def test_by_default_it_is_on_this_machine(folder: Path) -> None:
    assert engine_address({}).host == DEFAULT_HOST
    (folder / "config.json").write_text("no JSON")
    assert engine_address({"DOCKER_CONTEXT": "default"}).host == DEFAULT_HOST
    assert engine_address({}).host == DEFAULT_HOST


def test_the_host_comes_before_the_context_and_that_before_the_one_in_use(folder: Path) -> None:
    context(folder, "named", Host="tcp://named:2375")
    context(folder, "used", Host="unix:///used.sock")
    (folder / "config.json").write_text('{"currentContext": "used"}')
    environ = {"DOCKER_HOST": "tcp://host:2375", "DOCKER_CONTEXT": "named"}
    assert engine_address(environ).host == "tcp://host:2375"
    del environ["DOCKER_HOST"]
    assert engine_address(environ).host == "tcp://named:2375"
    assert engine_address({}).host == "unix:///used.sock"


def test_a_context_has_certificates_of_its_own(folder: Path) -> None:
    certificates = context(folder, "far", Host="tcp://far:2376")
    assert engine_address({"DOCKER_CONTEXT": "far"}).certificates is None
    certificates.mkdir(parents=True)
    assert engine_address({"DOCKER_CONTEXT": "far"}).certificates == certificates


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"DOCKER_CONTEXT": "absent"}, "There is no Docker context 'absent'"),
        ({"DOCKER_CONTEXT": "careless"}, "would believe any engine"),
        ({"DOCKER_CONTEXT": "by-ssh"}, "does not speak to an engine by SSH"),
        ({"DOCKER_CONTEXT": "broken"}, "cannot be read"),
        ({"DOCKER_HOST": "ssh://me@far"}, "DOCKER_HOST is ssh://me@far"),
        ({"DOCKER_API_VERSION": "1.39"}, "must be 1.40 or later, not '1.39'"),
        ({"DOCKER_API_VERSION": "new"}, "must be 1.40 or later, not 'new'"),
        ({"DOCKER_CONTENT_TRUST": "1"}, "DOCKER_CONTENT_TRUST is set"),
        ({"DOCKER_DEFAULT_PLATFORM": "linux/arm64"}, "DOCKER_DEFAULT_PLATFORM is set"),
        ({"DOCKER_CUSTOM_HEADERS": "a=b"}, "DOCKER_CUSTOM_HEADERS is set"),
    ],
)
def test_what_a_worker_does_not_do_is_refused_in_a_sentence(
    folder: Path, environ: dict[str, str], sentence: str
) -> None:
    context(folder, "careless", Host="tcp://x:1", SkipTLSVerify=True)
    context(folder, "by-ssh", Host="ssh://me@far")
    context(folder, "broken")
    key = hashlib.sha256(b"broken").hexdigest()
    (folder / "contexts" / "meta" / key / "meta.json").write_text("[]")
    with pytest.raises(SettingsError) as caught:
        engine_address(environ)
    assert sentence in str(caught.value)


def test_content_trust_that_is_off_is_fine() -> None:
    assert engine_address({"DOCKER_CONTENT_TRUST": "0"}).host == DEFAULT_HOST


async def test_the_engine_of_a_context_is_spoken_to_and_its_socket_given_to_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = folder / "other.sock"
    context(folder, "other", Host=f"unix://{socket}")
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    info = answer(200, {"ServerVersion": "7", "DockerRootDir": "/"})
    with trio.fail_after(200):
        async with (
            unix_server(socket, {**VERSION, b"/v1.41/info": info}),
            open_docker_engine() as engine,
        ):
            assert (await engine.info()).version == "7"
            with pytest.raises(PolicyRefused):
                await engine.create(ContainerSpec(name="x", image="x", volumes={str(socket): "/s"}))


async def test_the_version_that_is_set_is_spoken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = folder / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    monkeypatch.setenv("DOCKER_API_VERSION", "1.40")
    info = answer(200, {"ServerVersion": "7", "DockerRootDir": "/"})
    with trio.fail_after(200):
        async with unix_server(socket, {b"/v1.40/info": info}), open_docker_engine() as engine:
            assert (await engine.info()).version == "7"
