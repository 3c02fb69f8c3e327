from pathlib import Path

import pytest

from gyoza.cli.errors import ExitCode
from tests.client.scripted import Answer, scripted_server

from .conftest import Gyoza

GOOD = """
id: my-op
version: "1.0"
image: example/my-op:1
command: [run, fast]
input_specs:
  n: {type: int, required: false, default: 3}
constraints: {cpu: 2}
retry_policy: {max_attempts: 3, backoff_s: 1.5}
"""


@pytest.mark.parametrize("arguments", [[], ["gyoza.yml"], ["-"]])
def test_a_definition_is_sent_as_the_file_says(
    gyoza: Gyoza, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "gyoza.yml").write_text(GOOD)
    unknown = Answer({"detail": "There is no definition."}, 404)
    with scripted_server(unknown, Answer({"id": "my-op", "version": "1.0"})) as server:
        result = gyoza("definitions", "apply", "--server-url", server.url, *arguments, stdin=GOOD)
    assert (result.code, result.out) == (ExitCode.OK, "Deployed my-op, version 1.0.\n")
    assert server.requests[1].body == {
        "id": "my-op",
        "version": "1.0",
        "image": "example/my-op:1",
        "command": ["run", "fast"],
        "input_specs": {"n": {"type": "int", "required": False, "default": 3}},
        "constraints": {"cpu": 2},
        "retry_policy": {"max_attempts": 3, "backoff_s": 1.5},
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id: [", "gyoza.yml is not YAML: while parsing a flow"),
        ("a: \x07", "gyoza.yml is not YAML: unacceptable character"),
        ("!!python/object:os.system {}", "gyoza.yml is not YAML: could not determine a construct"),
        ("[" * 100_000, "gyoza.yml is not YAML: "),
        ("", "gyoza.yml must hold a mapping of fields, such as id and image."),
        ("- id", "gyoza.yml must hold a mapping of fields, such as id and image."),
        ("id: a\nimage: b\nimg: c\n1: d", "gyoza.yml has unknown fields: img, 1; known are id, im"),
        ("id: a", "gyoza.yml must give image, as text."),
        ("id: 1\nimage: b", "gyoza.yml must give id, as text."),
        ("id: ../a\nimage: b", "'../a' is not a valid definition id: use 1 to 63"),
        ("id: a\nimage: b\nversion: 1.10", "gyoza.yml must give the version in quotes, as in vers"),
        (
            "id: a\nimage: b\nenv_vars: {DAY: 2026-01-01}",
            "The definition in gyoza.yml cannot be sent as JSON: Object of type date",
        ),
        ("id: a\nimage: b\ntimeout_s: .nan", "The definition in gyoza.yml cannot be sent as JSON"),
    ],
)
def test_a_file_that_is_no_definition_is_told_before_anything_is_sent(
    gyoza: Gyoza, no_server: str, tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "gyoza.yml").write_text(text)
    result = gyoza("definitions", "apply")
    assert result.code == ExitCode.USAGE
    assert result.sentence.startswith(sentence)


def test_a_file_that_is_not_there_is_told(gyoza: Gyoza) -> None:
    result = gyoza("definitions", "apply")
    assert result.code == ExitCode.USAGE
    assert result.sentence == "The file gyoza.yml cannot be read: No such file or directory."
