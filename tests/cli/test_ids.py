"""Ids by their beginning, and what tells of a run beyond its state."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gyoza.cli.errors import ExitCode
from gyoza.client import GyozaClient
from gyoza.models import EventType
from tests.client.scripted import Answer, scripted_server

from .conftest import Gyoza
from .live import KEY, live_server, played_worker


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with live_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(autouse=True)
def access(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", url)
    monkeypatch.setenv("GYOZA_API_KEY", KEY)


@pytest.fixture
def client(url: str) -> Iterator[GyozaClient]:
    with GyozaClient(url, KEY) as client:
        yield client


def submit(client: GyozaClient, **more: Any) -> str:
    return client.create_run("image", {}, tags=["never"], **more)["id"]


def test_the_beginning_of_an_id_is_enough_wherever_a_run_is_named(
    gyoza: Gyoza, client: GyozaClient
) -> None:
    run = submit(client)
    short = run[:12]
    for command in (["show"], ["attempts"], ["cancel"], ["retry"], ["priority"], ["cancel"]):
        more = ["7"] if command == ["priority"] else []
        result = gyoza("runs", *command, short, *more)
        assert result.code == ExitCode.OK, result.err
    assert gyoza("runs", "logs", short).code == ExitCode.OK
    assert gyoza("runs", "list", "--after", short).code == ExitCode.OK
    assert client.get_run(run)["priority"] == 7
    assert client.get_run(run)["state"] == "CANCELLED"


def test_a_beginning_of_several_ids_is_refused_with_them(gyoza: Gyoza, client: GyozaClient) -> None:
    ids = [submit(client) for _ in range(17)]  # of 16 first digits
    first = next(run[0] for run in ids if sum(other[0] == run[0] for other in ids) > 1)
    result = gyoza("runs", "cancel", first)
    assert result.code == ExitCode.USAGE
    assert result.sentence.startswith(f"'{first}' begins the id of more than one run: {first}")
    assert not any(client.get_run(run)["state"] == "CANCELLED" for run in ids)


def test_runs_are_found_by_the_beginning_of_their_ids(client: GyozaClient) -> None:
    run = submit(client)
    assert [found["id"] for found in client.list_runs(id_prefix=run[:20])["data"]] == [run]
    assert client.list_runs(id_prefix=run[:20], state="FAILED")["data"] == []
    assert client.list_runs(id_prefix=f"{run}0")["data"] == []
    with pytest.raises(Exception, match="come in one page"):
        client.list_runs(id_prefix=run[:20], starting_after=run)


def test_a_server_that_does_not_know_prefixes_gets_the_id_as_it_is(gyoza: Gyoza) -> None:
    runs = Answer({"data": [{"id": "ab" * 16}, {"id": "cd" * 16}], "has_more": False})
    unknown = Answer({"detail": "There is no run 'ab'."}, 404)
    with scripted_server(runs, unknown) as server:
        result = gyoza("runs", "cancel", "ab", "--server-url", server.url)
    assert result.sentence == "There is no run 'ab'."
    assert [request.path for request in server.requests[1:]] == ["/runs/ab/cancel"]


def test_a_run_is_shown_with_its_tags_priority_topic_and_date(
    gyoza: Gyoza, client: GyozaClient
) -> None:
    run = submit(client, priority=8, event_delivery={"topic": "nightly"})
    shown = gyoza("runs", "show", run).out
    lines = (line.partition("  ") for line in shown.splitlines())
    fields = {name.strip(): value for name, _, value in lines}
    assert fields["tags"].strip() == "never"
    assert fields["priority"].strip() == "8"
    assert fields["topic"].strip() == "nightly"
    year = client.get_run(run)["created_at"][:4]
    assert fields["created"].strip().startswith(f"{year}-")


def test_attempts_are_listed_with_how_they_ended(gyoza: Gyoza, url: str) -> None:
    with played_worker(url, "w7", ("attempts",)) as worker:
        run = worker.client.create_run(
            "image", {}, tags=["attempts"], retry_policy={"max_attempts": 2}
        )["id"]
        assert gyoza("runs", "attempts", run).err == "No attempt has begun yet.\n"
        worker.fail(worker.start(), "The container exited with 3.")
        worker.report(worker.start(), EventType.COMPLETED, "done", {})
    heading, first, second = gyoza("runs", "attempts", run).out.splitlines()
    assert heading.split()[:3] == ["ATTEMPT", "STATE", "WORKER"]
    assert first.split()[:3] == ["1", "FAILED", "w7"]
    assert first.endswith("The container exited with 3.")
    assert second.split()[:3] == ["2", "COMPLETED", "w7"]
    assert len(json.loads(gyoza("runs", "attempts", run, "--json").out)) == 2


def test_a_priority_is_changed(gyoza: Gyoza, client: GyozaClient) -> None:
    run = submit(client)
    assert gyoza("runs", "priority", run, "9").out == f"Run {run} has priority 9.\n"
    assert json.loads(gyoza("runs", "priority", run, "3", "--json").out)["priority"] == 3


def test_the_same_idempotency_key_prints_the_same_run(gyoza: Gyoza) -> None:
    once = gyoza("run", "image", "-t", "never", "--idempotency-key", "tonight")
    assert gyoza("run", "image", "-t", "never", "--idempotency-key", "tonight").out == once.out


def test_more_runs_than_a_page_holds_are_refused_with_how_many_it_does(gyoza: Gyoza) -> None:
    result = gyoza("runs", "list", "--limit", "5000")
    assert result.code == ExitCode.USAGE
    assert "must be less than or equal to 500" in result.sentence


def test_a_key_is_written_into_a_file_for_its_user_alone(gyoza: Gyoza, tmp_path: Path) -> None:
    file = tmp_path / "laptop.key"
    made = gyoza("keys", "create", "laptop", "--role", "client", "--out", "laptop.key")
    assert (made.code, made.out) == (ExitCode.OK, "The key is in laptop.key.\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = file.read_text().strip()
    assert key not in made.out + made.err
    assert gyoza("runs", "list", "--api-key-file", "laptop.key").code == ExitCode.OK
    again = gyoza("keys", "create", "laptop", "--role", "client", "--out", "laptop.key", "--json")
    assert "cannot be made: File exists" in again.sentence
    assert file.read_text().strip() == key
    refused = gyoza("keys", "create", "x", "--role", "worker", "--out", "other.key")
    assert refused.code == ExitCode.USAGE
    assert not os.path.exists("other.key")


def test_a_key_is_revoked_by_the_beginning_of_its_id(gyoza: Gyoza) -> None:
    made = json.loads(gyoza("keys", "create", "short", "--role", "client", "--json").out)
    assert gyoza("keys", "revoke", made["id"][:10]).out == f"Key {made['id']} is revoked.\n"


@pytest.mark.parametrize("ttl", ["30", "d", "-1d", "1.5h", "0d", "", "1y"])
def test_a_time_that_is_none_is_told(gyoza: Gyoza, ttl: str) -> None:
    result = gyoza("keys", "create", "x", "--role", "client", "--ttl", ttl)
    assert result.sentence == f"--ttl takes a time like 30d, 12h, 90m or 45s, not {ttl!r}."


def test_what_a_key_is_limited_to_is_sent(gyoza: Gyoza) -> None:
    made = Answer({"id": "k1", "role": "worker", "key": "gyoza_k1_x"}, 201)
    limits = "--worker gpu-* --tags red,low --max-runs 4 --ttl 30d"
    with scripted_server(made) as server:
        create = ("keys", "create", "gpus", "--role", "worker", "--server-url", server.url)
        assert gyoza(*create, *limits.split()).out == "gyoza_k1_x\n"
    assert server.requests[0].body == {
        "name": "gpus",
        "role": "worker",
        "worker": "gpu-*",
        "tags": ["red", "low"],
        "max_runs": 4,
        "ttl_s": 30 * 86400.0,
    }


def test_keys_are_listed_with_their_last_use_and_their_end(gyoza: Gyoza) -> None:
    key = {
        "id": "k1",
        "name": "gpus",
        "role": "worker",
        "worker": "gpu-*",
        "tags": ["red"],
        "max_runs": 4,
        "created_at": "2026-01-01T12:00:00Z",
        "last_used_at": "2026-01-01T12:00:00Z",
        "expires_at": "2036-01-03T12:00:00Z",
    }
    fresh = {**key, "id": "k2", "last_used_at": None, "expires_at": None, "tags": None}
    with scripted_server(Answer([key, fresh])) as server:
        heading, used, unused = gyoza("keys", "list", "--server-url", server.url).out.splitlines()
    assert heading.split("  ")[0] == "KEY"
    assert " d ago" in used
    assert "2036-01-03" in used
    assert "red" in used
    assert unused.split()[-2:] == ["never", "never"]


def test_a_definition_is_deleted_after_a_question(gyoza: Gyoza) -> None:
    with scripted_server(Answer(b"", 204)) as server:
        delete = ("definitions", "delete", "--server-url", server.url)
        assert gyoza(*delete, "op", stdin="n\n").code == ExitCode.INTERRUPTED
        assert server.requests == []
        assert gyoza(*delete, "op", stdin="y\n").out == "Deleted op, all versions.\n"
        for text in ("op@1.0", "op:1.0"):
            assert gyoza(*delete, text, "--yes").out == "Deleted op, version 1.0.\n"
    asked = [(request.method, request.path) for request in server.requests]
    assert asked == [
        ("DELETE", "/definitions/op"),
        ("DELETE", "/definitions/op?version=1.0"),
        ("DELETE", "/definitions/op?version=1.0"),
    ]


def test_a_worker_is_forgotten_unless_it_is_online(gyoza: Gyoza) -> None:
    online = Answer({"detail": "Worker w1 is online."}, 409)
    with scripted_server(Answer(b"", 204), online) as server:
        forget = ("workers", "forget", "w1", "--server-url", server.url)
        assert gyoza(*forget).out == "Worker w1 is forgotten.\n"
        assert gyoza(*forget).sentence == "Worker w1 is online."
    assert (server.requests[0].method, server.requests[0].path) == ("DELETE", "/workers/w1")


def test_of_a_worker_that_is_gone_nothing_is_told_of_now(gyoza: Gyoza) -> None:
    gone = {"running_ops": [{"id": "r"}], "resources": {"cpu_cores": 2, "ram_mb": 1}}
    workers = [{"id": name, "state": name, **gone} for name in ("lost", "offline", "online")]
    with scripted_server(Answer(workers)) as server:
        out = gyoza("workers", "list", "--server-url", server.url).out
    rows = {line.split()[0]: line.split()[1:4] for line in out.splitlines()}
    assert rows["lost"] == ["lost", "unknown", "2"]
    assert rows["offline"] == ["offline", "unknown", "2"]
    assert rows["online"] == ["online", "ok", "1"]


def test_pages_of_a_list_are_put_together(gyoza: Gyoza) -> None:
    first = Answer([{"id": "a"}, {"id": "b"}], headers={"Gyoza-Next-Page": "b c"})
    with scripted_server(first, Answer([{"id": "d"}])) as server:
        out = gyoza("workers", "list", "--json", "--server-url", server.url).out
    assert [worker["id"] for worker in json.loads(out)] == ["a", "b", "d"]
    assert [request.path for request in server.requests] == [
        "/workers",
        "/workers?starting_after=b+c",
    ]


def test_who_made_a_run_is_shown(gyoza: Gyoza) -> None:
    run = {"id": "r" * 32, "image": "i", "created_by": {"id": "k1", "name": "ci"}}
    with scripted_server(Answer(run)) as server:
        out = gyoza("runs", "show", "r" * 32, "--server-url", server.url).out
    assert "ci (key k1)" in out
