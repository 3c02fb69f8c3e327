"""The commands that look at runs, definitions and workers, against a real server."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gyoza.cli.errors import ExitCode
from gyoza.client import GyozaClient
from gyoza.models import EventType

from .conftest import Gyoza
from .live import KEY, live_server, played_worker


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with live_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(autouse=True)
def client(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[GyozaClient]:
    monkeypatch.setenv("GYOZA_SERVER_URL", url)
    monkeypatch.setenv("GYOZA_API_KEY", KEY)
    with GyozaClient(url, KEY) as client:
        yield client


@pytest.fixture
def failed(client: GyozaClient, url: str) -> str:
    """The id of a run that has failed."""
    limits: dict[str, Any] = {"constraints": {"cpu": 1}, "timeout_s": 60, "grace_s": 0}
    client.create_run("example/fails", {"n": 1, "text": "a [b]"}, **limits)
    with played_worker(url) as worker:
        run = worker.start()
        worker.report(run, EventType.INFO, "half way")
        worker.log(run, "one\ntwo")
        worker.fail(run, "The container exited with 3.")
        return run.id


def fields(out: str) -> dict[str, str]:
    split = (line.split("  ", 1) for line in out.splitlines())
    return {name.strip(): value.strip() for name, value in split}


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


def test_without_runs_the_list_says_so(gyoza: Gyoza) -> None:
    result = gyoza("runs", "list", "--topic", "nothing-here")
    assert (result.code, result.out, result.err) == (0, "", "No runs.\n")


def test_runs_are_listed_newest_first_a_page_at_a_time(gyoza: Gyoza, client: GyozaClient) -> None:
    feed: dict[str, Any] = {"event_delivery": {"topic": "pages"}}
    ids = [client.create_run("image", {}, tags=["never"], **feed)["id"] for _ in range(3)]
    page = gyoza("runs", "list", "--topic", "pages", "--limit", "2")
    heading, newest, older = rows(page.out)
    assert heading == [
        "RUN",
        "STATE",
        "%",
        "IMAGE",
        "DEFINITION",
        "WORKER",
        "AGE",
        "DURATION",
        "ERROR",
    ]
    assert newest[:4] == [ids[2], "PENDING", "0", "image"]
    assert older[0] == ids[1]
    todo = f"gyoza runs list --topic pages --limit 2 --after {ids[1]}"
    assert page.err == f"There are more: `{todo}`.\n"
    rest = gyoza("runs", "list", "--topic", "pages", "--after", ids[1])
    assert [row[0] for row in rows(rest.out)] == ["RUN", ids[0]]
    found = json.loads(gyoza("runs", "list", "--topic", "pages", "--json").out)
    assert [run["id"] for run in found["data"]] == ids[::-1]
    assert found["has_more"] is False


def test_runs_are_listed_by_state_and_image(gyoza: Gyoza, failed: str) -> None:
    by_state = gyoza("runs", "list", "--state", "failed", "--image", "example/fails")
    (told,) = (line for line in by_state.out.splitlines() if line.startswith(failed))
    assert re.search(r" \d+\.\d s +The container exited with 3\.$", told)
    assert gyoza("runs", "list", "--state", "RUNNING", "--image", "example/fails").out == ""


def test_a_run_is_shown_with_what_went_in_and_why_it_failed(gyoza: Gyoza, failed: str) -> None:
    result = gyoza("runs", "show", failed)
    shown = fields(result.out.partition("\n\n")[0])
    assert shown["run"] == failed
    assert shown["state"] == "FAILED"
    assert shown["attempt"] == "1"
    assert shown["inputs"] == '{"n": 1, "text": "a [b]"}'
    assert shown["constraints"] == "1 core"
    assert shown["reason"] == "EXIT_CODE"
    assert shown["exit code"] == "3"
    assert shown["error"] == "The container exited with 3."
    assert shown["duration"].endswith(" s")
    assert (shown["time limit"], shown["grace period"]) == ("60 s", "0 s")
    assert "outputs" not in shown
    heading, *told = rows(result.out.partition("\n\n")[2])
    assert heading == ["TIME", "EVENT", "MESSAGE"]
    assert all(datetime.fromisoformat(" ".join(row[:2])) for row in told)
    events = [heading[1:], *(row[2:] for row in told)]
    assert [event[0] for event in events] == ["EVENT", "ASSIGNED", "STARTED", "INFO", "FAILED"]
    assert events[3] == ["INFO", "half", "way"]


def test_a_run_is_shown_as_json_as_the_server_tells_it(
    gyoza: Gyoza, client: GyozaClient, failed: str
) -> None:
    assert json.loads(gyoza("runs", "show", failed, "--json").out) == client.get_run(failed)


def test_a_run_that_was_never_claimed_has_no_events_to_show(
    gyoza: Gyoza, client: GyozaClient
) -> None:
    run_id = client.create_run("image", {}, tags=["never"])["id"]
    result = gyoza("runs", "show", run_id)
    assert "PENDING" in result.out
    assert "EVENT" not in result.out


@pytest.mark.parametrize("arguments", [[], ["-f"], ["--attempt", "1"]])
def test_the_log_is_printed_as_it_is(gyoza: Gyoza, failed: str, arguments: list[str]) -> None:
    result = gyoza("runs", "logs", failed, *arguments)
    assert (result.code, result.out, result.err) == (0, "one\ntwo", "")


def test_a_run_is_cancelled_and_retried(gyoza: Gyoza, client: GyozaClient) -> None:
    run_id = client.create_run("image", {}, tags=["never"])["id"]
    assert gyoza("runs", "cancel", run_id).out == f"Run {run_id} is CANCELLED.\n"
    assert gyoza("runs", "cancel", run_id).code == ExitCode.OK
    assert gyoza("runs", "retry", run_id).out == f"Run {run_id} is PENDING.\n"
    again = gyoza("runs", "cancel", run_id, "--json")
    assert json.loads(again.out)["state"] == "CANCELLED"


def test_what_cannot_be_retried_is_told(gyoza: Gyoza, client: GyozaClient) -> None:
    run_id = client.create_run("image", {}, tags=["never"])["id"]
    result = gyoza("runs", "retry", run_id)
    assert result.code == ExitCode.USAGE
    assert run_id in result.sentence


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "retry"])
def test_an_unknown_run_is_told(gyoza: Gyoza, command: str) -> None:
    result = gyoza("runs", command, "nowhere")
    assert result.code == ExitCode.USAGE
    assert "nowhere" in result.sentence


def test_a_wrong_key_is_told(gyoza: Gyoza) -> None:
    result = gyoza("runs", "list", "--api-key-file", "-", stdin="wrong\n")
    assert result.code == ExitCode.SERVER
    assert "key" in result.sentence


def test_a_server_named_by_flag_gets_the_key_of_the_environment(
    gyoza: Gyoza, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GYOZA_SERVER_URL", "http://127.0.0.1:9")
    assert gyoza("workers", "list", "--server-url", url).code == ExitCode.OK
    monkeypatch.delenv("GYOZA_API_KEY")
    assert gyoza("workers", "list", "--server-url", url).code == ExitCode.SERVER
    by_stdin = ("--server-url", url, "--api-key-file", "-")
    assert gyoza("workers", "list", *by_stdin, stdin=f"{KEY}\n").code == ExitCode.OK
    assert "holds no key" in gyoza("workers", "list", *by_stdin, stdin="\n").sentence


def apply(gyoza: Gyoza, directory: Path, **fields: Any) -> str:
    definition = {"id": "op", "image": "example/op", "version": "1.0", **fields}
    (directory / "gyoza.yml").write_text(json.dumps(definition))
    result = gyoza("definitions", "apply")
    assert result.code == ExitCode.OK, result.err
    return result.out


def test_a_definition_is_deployed_listed_shown_and_run(gyoza: Gyoza, home: Path) -> None:
    specs = {"n": {"type": "int"}, "m": {"type": "int", "required": False, "default": 2}}
    assert apply(gyoza, home, input_specs=specs) == "Deployed op, version 1.0.\n"
    assert apply(gyoza, home, input_specs=specs) == "Unchanged: op, version 1.0.\n"
    assert apply(gyoza, home) == "Replaced op, version 1.0.\n"
    assert apply(gyoza, home, input_specs=specs) == "Replaced op, version 1.0.\n"
    apply(gyoza, home, input_specs=specs, version="1.1", description="newer", grace_s=2.5)
    listed = [row[:3] for row in rows(gyoza("definitions", "list").out)]
    assert listed[0] == ["NAME", "VERSION", "IMAGE"]
    assert sorted(listed[1:]) == [["op", "1.0", "example/op"], ["op", "1.1", "example/op"]]
    assert len(json.loads(gyoza("definitions", "list", "--json").out)) == 2
    shown = fields(gyoza("definitions", "show", "op").out)
    assert shown["inputs"] == "n: int, required; m: int, default 2"
    assert (shown["description"], shown["grace period"]) == ("newer", "2.5 s")
    assert "{" not in "".join(shown.values())
    assert json.loads(gyoza("definitions", "show", "op", "--json").out)["version"] == "1.1"
    assert json.loads(gyoza("run", "-d", "op", "-i", "n=1", "--json").out)["grace_s"] == 2.5
    older = gyoza("definitions", "show", "op", "--version", "1.0", "--json")
    assert json.loads(older.out)["version"] == "1.0"
    made = json.loads(gyoza("run", "-d", "op@1.0", "-i", "n=1", "--json").out)
    assert made["inputs"] == {"n": 1, "m": 2}
    assert made["image"] == "example/op"


def test_applying_as_json_prints_the_definition(gyoza: Gyoza) -> None:
    result = gyoza("definitions", "apply", "-", "--json", stdin="id: js\nimage: example/js")
    assert json.loads(result.out)["id"] == "js"


def test_inputs_of_the_wrong_type_are_told(gyoza: Gyoza, home: Path) -> None:
    apply(gyoza, home, id="typed", input_specs={"n": {"type": "int"}})
    result = gyoza("run", "-d", "typed", "-i", "n=three")
    assert result.code == ExitCode.USAGE
    assert "'n'" in result.sentence
    assert "int" in result.sentence


@pytest.mark.parametrize(
    "fields",
    [
        {"input_specs": {"n": {"type": "integer"}}},
        {"constraints": {"cpu": "two"}},
        {"retry_policy": {"max_attempts": 0}},
        {"command": "not a list"},
    ],
)
def test_a_definition_that_does_not_validate_is_told(
    gyoza: Gyoza, home: Path, fields: dict[str, Any]
) -> None:
    (home / "gyoza.yml").write_text(json.dumps({"id": "op", "image": "i", **fields}))
    result = gyoza("definitions", "apply")
    assert result.code == ExitCode.USAGE
    assert next(iter(fields)) in result.sentence


def test_an_unknown_definition_is_told(gyoza: Gyoza) -> None:
    for arguments in (["definitions", "show", "nowhere"], ["run", "-d", "nowhere"]):
        result = gyoza(*arguments)
        assert result.code == ExitCode.USAGE
        assert "nowhere" in result.sentence


def test_workers_are_listed_shown_drained_and_resumed(gyoza: Gyoza, url: str) -> None:
    with played_worker(url, "shown", ("fast", "near")):
        listed = {row[0]: row for row in rows(gyoza("workers", "list").out)}
        assert "2048" in listed["shown"]
        assert "fast," in listed["shown"]
        assert "shown" in [
            worker["id"] for worker in json.loads(gyoza("workers", "list", "--json").out)
        ]
        shown = fields(gyoza("workers", "show", "shown").out)
        assert shown["resources"] == "2 cores, 2048 MB, GPUs: none"
        assert (shown["tags"], shown["runs"]) == ("fast, near", "none")
        assert "{" not in "".join(shown.values())
        assert json.loads(gyoza("workers", "show", "shown", "--json").out)["id"] == "shown"
        drained = gyoza("workers", "drain", "shown")
        assert drained.out.startswith("Worker shown is draining;")
        assert gyoza("workers", "resume", "shown").out == "Worker shown gets runs again.\n"
        for command in ("drain", "resume"):
            assert json.loads(gyoza("workers", command, "shown", "--json").out)["id"] == "shown"


@pytest.mark.parametrize(
    ("told", "health"),
    [
        ({}, "ok"),
        ({"engine": "ok", "disk": "ok"}, "ok"),
        ({"engine": "unavailable"}, "engine unavailable"),
        ({"engine": "unavailable", "disk": "low"}, "engine unavailable, disk low"),
    ],
)
def test_workers_are_listed_with_what_keeps_them_from_work(
    gyoza: Gyoza, client: GyozaClient, told: dict[str, Any], health: str
) -> None:
    client.heartbeat("ailing", {}, **told)
    heading, *listed = gyoza("workers", "list").out.splitlines()
    at = heading.index("HEALTH")
    (line,) = (line for line in listed if line.startswith("ailing "))
    assert line[at:].split("  ")[0] == health
    assert fields(gyoza("workers", "show", "ailing").out)["health"] == health


def test_a_worker_is_listed_with_a_run_that_it_was_just_given(
    gyoza: Gyoza, client: GyozaClient
) -> None:
    client.heartbeat("given", {}, tags=["only-here"])
    client.create_run("image", {}, tags=["only-here"])
    assert len(client.claim("given")) == 1  # no heartbeat lists it yet
    heading, *listed = gyoza("workers", "list").out.splitlines()
    (line,) = (line for line in listed if line.startswith("given "))
    assert line[heading.index("RUNS") :].split()[0] == "1"


def test_keys_are_made_listed_and_revoked(gyoza: Gyoza, url: str) -> None:
    made = gyoza("keys", "create", "laptop", "--role", "client")
    key = made.out.strip()
    key_id = key.split("_")[1]
    assert f"gyoza keys revoke {key_id}" in made.err
    assert rows(gyoza("keys", "list").out)[-1][:3] == [key_id, "laptop", "client"]
    create = ("keys", "create", "gpus", "--role", "worker", "--worker", "gpu-*", "--json")
    worker = json.loads(gyoza(*create).out)
    listed = json.loads(gyoza("keys", "list", "--json").out)
    assert [(k["name"], k["worker"]) for k in listed] == [("laptop", None), ("gpus", "gpu-*")]
    assert "key" not in listed[0]
    assert gyoza("keys", "revoke", key_id).out == f"Key {key_id} is revoked.\n"
    assert json.loads(gyoza("keys", "revoke", worker["id"], "--json").out) == []
    assert "There is no key" in gyoza("keys", "revoke", key_id).err
    assert "is required for role worker" in gyoza("keys", "create", "x", "--role", "worker").err


@pytest.mark.parametrize("command", ["show", "drain", "resume"])
def test_an_unknown_worker_is_told(gyoza: Gyoza, command: str) -> None:
    result = gyoza("workers", command, "nowhere")
    assert result.code == ExitCode.USAGE
    assert "nowhere" in result.sentence
