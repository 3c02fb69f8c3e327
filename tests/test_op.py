"""The helper for ops: the protocol with the worker, and trying an op without a container."""

import json
import os
import pickle
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gyoza import op as helper
from gyoza.op import error, info, inputs, main, op, outputs, progress

PREFIX = "::gyoza::"


@dataclass
class Container:
    """What the worker sets up for an op, in this process."""

    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "output"


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    (tmp_path / "input.json").write_text('{"path": "ü", "count": 2}', "utf-8")
    (tmp_path / "input.pkl").write_bytes(pickle.dumps({"path": "ü", "count": 2}))
    monkeypatch.setenv("GYOZA_INPUT_JSON_PATH", str(tmp_path / "input.json"))
    monkeypatch.setenv("GYOZA_INPUT_PATH", str(tmp_path / "input.pkl"))
    monkeypatch.setenv("GYOZA_OUTPUT_PATH", str(tmp_path / "output"))
    return Container(tmp_path)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GYOZA_INPUT_JSON_PATH", "GYOZA_INPUT_PATH", "GYOZA_OUTPUT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["op.py"])


def events(text: str) -> list[dict[str, Any]]:
    lines = [line for line in text.splitlines() if line.startswith(PREFIX)]
    return [json.loads(line.removeprefix(PREFIX)) for line in lines]


def test_inputs_come_from_json_or_else_from_the_pickle(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inputs() == {"path": "ü", "count": 2}
    monkeypatch.delenv("GYOZA_INPUT_JSON_PATH")
    assert inputs() == {"path": "ü", "count": 2}
    (container.folder / "input.pkl").write_bytes(pickle.dumps({"only": "pickle"}))
    assert inputs() == {"only": "pickle"}


def test_events_are_single_ascii_lines(capsys: pytest.CaptureFixture[str]) -> None:
    info("größer\n::gyoza::{}", file="a", n=[1])
    error("bad", code=3)
    progress(40)
    written = capsys.readouterr().out
    assert written.isascii()
    assert written.count("\n") == 3
    assert events(written) == [
        {"type": "INFO", "msg": "größer\n::gyoza::{}", "payload": {"file": "a", "n": [1]}},
        {"type": "ERROR", "msg": "bad", "payload": {"code": 3}},
        {"type": "PROGRESS", "msg": 40, "payload": {}},
    ]


def test_a_payload_may_have_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    info("hello", msg="again", type="x", payload=1)
    assert events(capsys.readouterr().out)[0]["payload"] == {
        "msg": "again",
        "type": "x",
        "payload": 1,
    }


@pytest.mark.parametrize(
    ("percent", "told"), [(-3, 0), (0, 0), (33.9, 33), (100, 100), (250, 100), (float("nan"), 0)]
)
def test_progress_is_a_whole_number_from_0_to_100(
    percent: float, told: int, capsys: pytest.CaptureFixture[str]
) -> None:
    progress(percent)
    assert events(capsys.readouterr().out)[0]["msg"] == told


def test_events_of_many_threads_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    def send(number: int) -> None:
        for _ in range(50):
            info("x" * 500, number=number)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    numbers = [event["payload"]["number"] for event in events(capsys.readouterr().out)]
    assert sorted(numbers) == [number for number in range(8) for _ in range(50)]


def test_outputs_are_whole_json_that_any_user_can_read(container: Container) -> None:
    before = os.umask(0o077)
    try:
        outputs({"old": 1})
        outputs({"words": 7, "top": ("ü", None, True, 0.5)})
    finally:
        os.umask(before)
    assert json.loads(container.output.read_bytes()) == {"words": 7, "top": ["ü", None, True, 0.5]}
    assert stat.S_IMODE(container.output.stat().st_mode) == 0o644
    assert sorted(path.name for path in container.folder.iterdir()) == [
        "input.json",
        "input.pkl",
        "output",
    ]


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1], "outputs must be a dict, not list"),
        ({"a": {1, 2}}, r"outputs\['a'\] is of type set"),
        ({"a": [0, {"b": b"x"}]}, r"outputs\['a'\]\[1\]\['b'\] is of type bytes"),
        ({"a": {1: 2}}, r"outputs\['a'\] has the key 1"),
        ({"a": float("nan")}, r"outputs\['a'\] is nan"),
        ({"a": "\ud800"}, r"outputs\['a'\] has text with half a surrogate pair"),
        ({"\ud800": 1}, "outputs has text with half"),
        ({"a": 2**1024}, r"outputs\['a'\] is a number of more than 1024 bits"),
        (deep(65), r"\.\.\. is nested deeper than 64 levels"),
    ],
)
def test_outputs_that_are_not_plain_are_refused_by_name(
    container: Container, values: Any, sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence):
        outputs(values)
    assert not container.output.exists()


def test_the_worker_reads_the_deepest_outputs_that_are_written(tmp_path: Path) -> None:
    from gyoza.worker.op_io import OUTPUT, make_op_dir, read_outputs

    op_dir = make_op_dir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GYOZA_OUTPUT_PATH", str(op_dir / OUTPUT))
        outputs(deep(64))
    assert read_outputs(tmp_path) == deep(64)


def test_the_limits_are_those_of_the_worker() -> None:
    from gyoza.worker.op_io import Limits
    from gyoza.worker.op_io.plain_data import MAX_INT_BITS

    assert (Limits().depth, MAX_INT_BITS) == (helper.MAX_DEPTH, helper.MAX_INT_BITS)


def test_main_calls_the_function_with_the_inputs_and_writes_what_it_returns(
    container: Container,
) -> None:
    def shout(path: str, count: int, mark: str = "!") -> dict[str, Any]:
        return {"text": path * count + mark}

    with pytest.raises(SystemExit) as ended:
        main(shout)
    assert ended.value.code == 0
    assert json.loads(container.output.read_bytes()) == {"text": "üü!"}


def test_a_function_that_returns_nothing_leaves_the_outputs_it_wrote(container: Container) -> None:
    def quiet(**given: Any) -> None:
        outputs(given)

    with pytest.raises(SystemExit) as ended:
        main(quiet)
    assert ended.value.code == 0
    assert json.loads(container.output.read_bytes())["count"] == 2


def test_an_exception_is_told_and_ends_with_1(
    container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: str, count: int) -> dict[str, Any]:
        raise RuntimeError(f"no {path}")

    with pytest.raises(SystemExit) as ended:
        main(fail)
    assert ended.value.code == 1
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert events(captured.out) == [{"type": "ERROR", "msg": "RuntimeError: no ü", "payload": {}}]
    assert not container.output.exists()


def test_what_cannot_be_an_output_is_told_and_ends_with_1(
    container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(**_given: Any) -> Any:
        return 7

    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 1
    assert "outputs must be a dict, not int" in events(capsys.readouterr().out)[0]["msg"]
    assert not container.output.exists()


def test_inputs_that_do_not_fit_the_function_get_one_sentence(
    container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(name: str) -> None:
        raise AssertionError(name)

    with pytest.raises(SystemExit) as ended:
        main(other)
    assert ended.value.code == 1
    captured = capsys.readouterr()
    sentence = "The inputs do not fit: missing a required argument: 'name'."
    assert captured.err == sentence + "\n"
    assert events(captured.out) == [{"type": "ERROR", "msg": sentence, "payload": {}}]
    assert not container.output.exists()


def test_the_decorator_leaves_a_function_of_an_imported_module_alone() -> None:
    def double(n: int) -> dict[str, int]:
        return {"n": 2 * n}

    assert op(double) is double


def test_the_decorator_runs_a_function_of_the_main_module(container: Container) -> None:
    def count(path: str, count: int) -> dict[str, Any]:
        return {"count": count}

    count.__module__ = "__main__"
    with pytest.raises(SystemExit):
        op(count)
    assert json.loads(container.output.read_bytes()) == {"count": 2}


@pytest.mark.usefixtures("outside")
def test_outside_a_container_outputs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    outputs({"a": "ü"})
    assert capsys.readouterr().out == '{\n  "a": "ü"\n}\n'


@pytest.mark.usefixtures("outside")
def test_outside_a_container_inputs_come_from_the_first_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["op.py", '{"a": 1}'])
    assert inputs() == {"a": 1}
    monkeypatch.setattr(sys, "argv", ["op.py", "[1]"])
    with pytest.raises(ValueError, match="must be a JSON object"):
        inputs()


@pytest.mark.usefixtures("outside")
def test_outside_a_container_inputs_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = tmp_path / "given.json"
    given.write_text('{"a": 1}')
    with given.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        helper._stdin.cache_clear()  # pyright: ignore[reportPrivateUsage]
        assert inputs() == {"a": 1}
        assert inputs() == {"a": 1}
    helper._stdin.cache_clear()  # pyright: ignore[reportPrivateUsage]


OP = """
from gyoza_op import info, op, progress

@op
def count(path, least=1):
    info("reading", path=path)
    progress(100)
    return {"path": path, "least": least}
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """An op as in an image: its own file beside a copy of the helper, and no gyoza."""
    (tmp_path / "gyoza_op.py").write_bytes(Path(helper.__file__).read_bytes())
    (tmp_path / "count.py").write_text(OP)
    return tmp_path / "count.py"


def run(
    script: Path, *arguments: str, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", str(script), *arguments],
        input=stdin,
        env=env or {},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_copied_file_is_enough_to_run_an_op(script: Path) -> None:
    (script.parent / "in.json").write_text('{"path": "a"}')
    env = {
        "GYOZA_INPUT_JSON_PATH": str(script.parent / "in.json"),
        "GYOZA_OUTPUT_PATH": str(script.parent / "out"),
    }
    done = run(script, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert [event["type"] for event in events(done.stdout)] == ["INFO", "PROGRESS"]
    assert json.loads((script.parent / "out").read_bytes()) == {"path": "a", "least": 1}


def test_an_op_can_be_tried_by_hand(script: Path) -> None:
    for done in (run(script, '{"path": "b"}'), run(script, stdin='{"path": "b"}\n')):
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith('{\n  "path": "b",\n  "least": 1\n}\n')


@pytest.mark.parametrize("given", ["", "{", "[]", '{"size": 1}'])
def test_wrong_inputs_by_hand_get_one_sentence(script: Path, given: str) -> None:
    done = run(script, stdin=given)
    assert done.returncode == 1
    assert done.stderr.startswith("The inputs do not fit: ")
    assert done.stderr.count("\n") == 1
