import json
from pathlib import Path
from typing import Any

import pytest

from gyoza.cli.errors import ExitCode
from tests.client.scripted import Answer, scripted_server

from .conftest import Gyoza


def sent(gyoza: Gyoza, *arguments: str, stdin: str = "") -> Any:
    """Return the body that a `gyoza run` with these arguments sends."""
    with scripted_server(Answer({"id": "r1", "state": "PENDING"}, 201)) as server:
        result = gyoza("run", "--server-url", server.url, *arguments, stdin=stdin)
        assert result.out == "r1\n", result.err
        assert result.code == ExitCode.OK
        return server.requests[0].body


def test_an_image_alone_is_a_run_without_inputs(gyoza: Gyoza) -> None:
    assert sent(gyoza, "image") == {"image": "image", "inputs": {}, "priority": 5}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("3", 3),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('"3"', "3"),
        ('{"a": [1]}', {"a": [1]}),
        ("plain text", "plain text"),
        ("a=b", "a=b"),
        ("", ""),
        ("[1, 2", "[1, 2"),
        ("NaN", "NaN"),
        ("ä", "ä"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_an_input_is_json_if_it_parses_as_that_and_text_if_not(
    gyoza: Gyoza, given: str, value: Any
) -> None:
    assert sent(gyoza, "image", "-i", f"x={given}")["inputs"] == {"x": value}


def test_an_input_can_be_the_text_of_a_file(gyoza: Gyoza, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("3\n", encoding="utf-8")
    assert sent(gyoza, "image", "-i", "x=@in.txt")["inputs"] == {"x": "3\n"}
    assert sent(gyoza, "image", "-i", "x=@-", stdin="from stdin")["inputs"] == {"x": "from stdin"}


def test_inputs_come_from_a_file_and_single_ones_go_over_them(gyoza: Gyoza, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"a": 1, "b": 2}')
    arguments = ("image", "--inputs", "in.json", "-i", "b=3")
    assert sent(gyoza, *arguments)["inputs"] == {"a": 1, "b": 3}
    assert sent(gyoza, "image", "--inputs", "-", stdin='{"a": 1}')["inputs"] == {"a": 1}


def test_every_option_of_a_run_is_sent(gyoza: Gyoza) -> None:
    limits = "--cpu 2 --ram-mb 512 --vram-mb 1024 --timeout 1.5 --max-attempts 3 --priority 9"
    limits += " --grace 0"
    names = "--env A=1 -e B=x=y -t fast --tag big --topic feed"
    assert sent(gyoza, "image", *limits.split(), *names.split(), "--", "sh", "-c", "exit 1") == {
        "image": "image",
        "command": ["sh", "-c", "exit 1"],
        "inputs": {},
        "priority": 9,
        "constraints": {"cpu": 2, "ram_mb": 512, "vram_mb": 1024},
        "timeout_s": 1.5,
        "grace_s": 0.0,
        "retry_policy": {"max_attempts": 3},
        "env_vars": {"A": "1", "B": "x=y"},
        "tags": ["fast", "big"],
        "event_delivery": {"topic": "feed"},
    }


def test_the_value_of_a_secret_comes_from_the_environment_and_stands_on_no_command_line(
    gyoza: Gyoza, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    body = sent(gyoza, "image", "--secret", "TOKEN", "-e", "A=1")
    assert body["env_vars"] == {"A": "1", "TOKEN": "hunter2"}
    assert body["secrets"] == ["TOKEN"]


def test_a_run_of_a_definition_takes_inputs_priority_version_and_topic(gyoza: Gyoza) -> None:
    body = sent(gyoza, "-d", "op@1.2", "--text", "n=1", "--priority", "1", "--topic", "feed")
    assert body == {
        "inputs": {"n": "1"},
        "priority": 1,
        "version": "1.2",
        "event_delivery": {"topic": "feed"},
    }
    assert sent(gyoza, "-d", "op") == {"inputs": {}, "priority": 5}


def test_inputs_of_a_definition_are_of_the_types_it_tells(gyoza: Gyoza) -> None:
    types = {"sha": "string", "n": "int", "x": "float", "on": "bool", "l": "list", "any": "any"}
    definition = Answer({"id": "op", "input_specs": {k: {"type": t} for k, t in types.items()}})
    given = ("sha=1234567", "n=5", "x=1", "on=true", "l=[1]", "any=1.10", "other=2")
    with scripted_server(definition, Answer({"id": "r1"}, 201)) as server:
        options = [part for pair in given for part in ("-i", pair)]
        result = gyoza("run", "-d", "op@2", *options, "--server-url", server.url)
    assert result.code == ExitCode.OK, result.err
    assert server.requests[0].path == "/definitions/op?version=2"
    assert server.requests[1].body["inputs"] == {
        "sha": "1234567",
        "n": 5,
        "x": 1,
        "on": True,
        "l": [1],
        "any": 1.1,
        "other": 2,
    }


@pytest.mark.parametrize("value", ["1.10", "true", "12e4567", "@home", "", "a=b"])
def test_text_is_never_guessed(gyoza: Gyoza, value: str) -> None:
    assert sent(gyoza, "image", "--text", f"v={value}")["inputs"] == {"v": value}


@pytest.mark.parametrize("value", ["12e4567", "-1e999", "NaN", "01234"])
def test_what_is_no_number_of_json_is_text(gyoza: Gyoza, value: str) -> None:
    assert sent(gyoza, "image", "-i", f"v={value}")["inputs"] == {"v": value}


def test_with_json_the_run_is_printed_as_the_server_told_it(gyoza: Gyoza) -> None:
    with scripted_server(Answer({"id": "r1", "x": "ä"}, 201)) as server:
        result = gyoza("run", "image", "--json", "--server-url", server.url)
    assert json.loads(result.out) == {"id": "r1", "x": "ä"}


ONLY = (
    "With --definition only inputs, --priority, --topic and --idempotency-key can be given; "
    "the definition says the rest."
)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name an image, or a definition with --definition."),
        (["-d", "op", "image"], ONLY),
        (
            ["-d", "op", "--grace", "1"],
            ONLY,
        ),
        (["-d", "op", "--cpu", "1"], ONLY),
        (["image", "-i", "n"], "-i takes key=value, as in -i n=3, not 'n'."),
        (["image", "-i", "=3"], "-i takes key=value, as in -i n=3, not '=3'."),
        (["image", "-e", "A"], "--env takes key=value, as in --env KEY=VALUE, not 'A'."),
        (
            ["image", "--secret", "NONE"],
            "--secret NONE takes the value of the variable NONE; set it.",
        ),
        (
            ["-d", "op", "--secret", "PATH"],
            ONLY,
        ),
        (["image", "-i", "n=@no"], "The file no cannot be read: No such file or directory."),
        (["image", "--inputs", "."], "The file . cannot be read: Is a directory."),
        (["image", "--inputs", "raw"], "The file raw is not UTF-8 text."),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is_sent(
    gyoza: Gyoza, no_server: str, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "raw").write_bytes(b"\xff")
    result = gyoza("run", *arguments)
    assert (result.code, result.sentence) == (ExitCode.USAGE, sentence)


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', "[" * 100_000])
def test_inputs_that_are_no_json_are_told(gyoza: Gyoza, no_server: str, text: str) -> None:
    result = gyoza("run", "image", "--inputs", "-", stdin=text)
    assert result.code == ExitCode.USAGE
    assert result.sentence.startswith("The inputs in standard input are not JSON: ")


@pytest.mark.parametrize("text", ["[1]", "3", "null"])
def test_inputs_that_are_no_object_are_told(gyoza: Gyoza, tmp_path: Path, text: str) -> None:
    (tmp_path / "in.json").write_text(text)
    result = gyoza("run", "image", "--inputs", "in.json")
    assert result.code == ExitCode.USAGE
    assert result.sentence == (
        "The inputs in the file in.json must be a JSON object of names and values."
    )


@pytest.mark.parametrize("arguments", [["--timeout", "inf"], ["-i", "x=\udcff"]])
def test_what_json_cannot_carry_is_told(gyoza: Gyoza, no_server: str, arguments: list[str]) -> None:
    result = gyoza("run", "image", *arguments)
    assert result.code == ExitCode.USAGE
    assert result.sentence.startswith("The run cannot be sent as JSON: ")
