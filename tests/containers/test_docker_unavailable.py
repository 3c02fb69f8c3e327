"""What a person reads when the Docker Engine is not there or will not be spoken to."""

import os
import re
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import trio
import trio.testing

from gyoza.worker.containers.docker_client import own_errors
from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.errors import EngineUnavailable
from tests.containers.scripted import unix_server

SLOW = 200


async def what_info_says(host: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DOCKER_HOST", host)
    with trio.fail_after(SLOW):
        async with open_docker_engine(deadline_s=0.3) as engine:
            with pytest.raises(EngineUnavailable) as caught:
                await engine.info()
    return str(caught.value)


async def test_no_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/docker.sock"
    assert await what_info_says(host, monkeypatch) == (
        f"No Docker Engine answers at {host}; start Docker or set DOCKER_HOST."
    )


@contextmanager
def as_another_user() -> Generator[None]:
    """Give up root's right to pass every permission, if the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


async def test_no_permission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "closed.sock"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        engine.listen()
        path.chmod(0)
        with as_another_user():
            said = await what_info_says(f"unix://{path}", monkeypatch)
    assert said == (
        f"The Docker Engine at unix://{path} does not permit access; add your user to the group "
        "docker and log in again, or use sudo."
    )


async def test_no_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await what_info_says("tcp://127.0.0.1:1", monkeypatch) == (
        "No Docker Engine answers at tcp://127.0.0.1:1; start Docker or set DOCKER_HOST."
    )


async def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    said = await what_info_says("nonsense://x", monkeypatch)
    assert said.startswith("The Docker settings cannot be used: ")
    assert "nonsense" in said


async def test_certificates_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    said = await what_info_says("tcp://127.0.0.1:1", monkeypatch)
    assert said.startswith("The Docker settings cannot be used: ")


async def test_an_engine_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "silent.sock"
    async with unix_server(path, {}):
        said = await what_info_says(f"unix://{path}", monkeypatch)
        with trio.fail_after(200):
            await trio.testing.wait_all_threads_completed()
    assert said == f"The Docker Engine at unix://{path} did not answer within 0.3 s."


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "What answers at {host} is not a Docker Engine.",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "What answers at {host} is not a Docker Engine.",
        ),
        (b"", "The connection to the Docker Engine at {host} broke: Remote end closed connection"),
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.",
            "The Docker Engine at {host} wants TLS; set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.",
        ),
    ],
)
async def test_what_answers_is_not_what_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bytes, sentence: str
) -> None:
    path = tmp_path / "other.sock"
    async with unix_server(path, {b"": answer}):
        said = await what_info_says(f"unix://{path}", monkeypatch)
    assert said.startswith(sentence.format(host=f"unix://{path}"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied"), "does not permit access; add your user"),
        (ssl.SSLError(1, "bad certificate"), "check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"),
        (TimeoutError("timed out"), "did not answer in time"),
    ],
)
def test_causes_deep_in_an_error_are_told(error: Exception, sentence: str) -> None:
    with pytest.raises(EngineUnavailable, match=re.escape(sentence)), own_errors("unix:///x"):
        raise requests.ConnectionError("Connection aborted.", error)
