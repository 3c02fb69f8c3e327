"""Which login goes to which registry, as `docker` reads its own file."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gyoza.worker.containers import docker_login
from gyoza.worker.containers.docker_login import login_headers

HUB = "https://index.docker.io/v1/"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def store(folder: Path, **config: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def auth(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:p:w".encode()).decode()}


def login(registry: str) -> dict[str, str] | None:
    """Return the login that the engine is told for a registry."""
    headers, trouble = login_headers(registry)
    assert not trouble
    if not headers:
        return None
    return json.loads(base64.urlsafe_b64decode(headers["X-Registry-Auth"]))


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make a credentials helper that is called `test`."""
    program = folder / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("stored", "registry"),
    [
        (HUB, "docker.io"),
        ("docker.io", "docker.io"),
        ("example.org", "example.org"),
        ("https://example.org/v2/", "example.org"),
        ("http://localhost:5000", "localhost:5000"),
        ("localhost", "localhost"),
    ],
)
def test_a_login_goes_to_its_registry_and_to_no_other(
    folder: Path, stored: str, registry: str
) -> None:
    store(folder, auths={stored: auth("me")})
    sent = login(registry)
    assert sent
    assert (sent["username"], sent["password"]) == ("me", "p:w")
    others = {"docker.io", "example.org", "example.org:5000", "localhost:5000", "localhost"}
    others |= {"registry-1.docker.io", "localhost:5001"}
    assert not any(map(login, others - {registry}))


def test_without_a_file_in_its_folder_there_is_no_login(folder: Path) -> None:
    assert login("docker.io") is None


def test_tokens_are_told(folder: Path) -> None:
    store(folder, auths={"example.org": {"identitytoken": "t"}, "example.net": {}})
    assert login("example.org") == {"identitytoken": "t", "serveraddress": "example.org"}
    assert login("example.net") is None


def test_a_helper_is_asked_for_the_very_registry(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(folder, monkeypatch, """printf '{"Username": "me", "Secret": "%s"}' "$(cat)" """)
    store(folder, credHelpers={"localhost:5000": "test"}, auths={"example.org": auth("you")})
    sent = {"username": "me", "password": "localhost:5000", "serveraddress": "localhost:5000"}
    assert login("localhost:5000") == sent
    assert login("docker.io") is None
    store(folder, credsStore="test")
    assert (login("docker.io") or {})["password"] == HUB


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        ("""echo '{"Username": "<token>", "Secret": "t"}'""", {"identitytoken": "t"}),
        ("""echo '{"Username": "", "Secret": ""}'""", None),
        ("echo 'credentials not found in native keychain'; exit 1", None),
    ],
)
def test_what_a_helper_can_say(
    folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, sent: dict[str, str] | None
) -> None:
    helper(folder, monkeypatch, f"cat > /dev/null; {script}")
    store(folder, credsStore="test")
    assert login("a.example") == (sent and sent | {"serveraddress": "a.example"})


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'the vault is closed' >&2; exit 1", "says 'the vault is closed'"),
        ("echo '[]'", "gives no login"),
        ("exec sleep 200", "has not answered within 0.2 s"),
    ],
)
def test_a_helper_that_does_not_tell_is_no_login_and_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    monkeypatch.setattr(docker_login, "HELPER_S", 0.2 if "sleep" in script else 100)
    helper(folder, monkeypatch, f"cat > /dev/null; {script}")
    store(folder, credsStore="test")
    headers, trouble = login_headers("example.org")
    assert not headers
    assert trouble.startswith("The login for example.org cannot be read: docker-credential-test")
    assert why in trouble


def test_a_helper_that_is_not_there_is_no_login_and_said(folder: Path) -> None:
    store(folder, credsStore="absent")
    headers, trouble = login_headers("docker.io")
    assert not headers
    assert "docker-credential-absent cannot be started" in trouble


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": 7}', '{"auths": {"docker.io": {"auth": "!"}}}']
)
def test_a_file_that_is_none_of_dockers_is_no_login_and_said(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    headers, trouble = login_headers("docker.io")
    assert not headers
    assert trouble.startswith(f"{folder}/config.json cannot be read as Docker's: ")
