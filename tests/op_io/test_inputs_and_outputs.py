"""Inputs reach the op as they are; outputs come back as plain data or not at all."""

import json
import os
import pickle
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gyoza.models import FailureReason
from gyoza.worker.errors import OutputInvalid, WorkerError
from gyoza.worker.op_io import (
    INPUT_JSON,
    INPUT_PICKLE,
    OUTPUT,
    Limits,
    mounted_dir,
    read_outputs,
    write_inputs,
)

from .test_op_dir import as_nobody, make_run_dir
from .test_plain_pickle import plain, text, with_lists


@pytest.fixture
def op_dir(tmp_path: Path) -> Path:
    return make_run_dir(tmp_path)


@pytest.fixture
def output(op_dir: Path) -> Path:
    return mounted_dir(op_dir) / OUTPUT


INPUTS = {"text": "gyoza ü 🥟", "n": 3, "list": [1.5, None, True], "tuple": (1, 2)}


def test_inputs_arrive_as_a_pickle_and_as_json(op_dir: Path) -> None:
    write_inputs(op_dir, INPUTS)
    assert pickle.loads((mounted_dir(op_dir) / INPUT_PICKLE).read_bytes()) == with_lists(INPUTS)
    as_json = (mounted_dir(op_dir) / INPUT_JSON).read_text("utf-8")
    assert json.loads(as_json) == with_lists(INPUTS)
    assert "🥟" in as_json


def test_inputs_are_readable_by_any_user(op_dir: Path) -> None:
    before = os.umask(0o077)
    try:
        write_inputs(op_dir, INPUTS)
    finally:
        os.umask(before)
    for name in (INPUT_PICKLE, INPUT_JSON):
        assert stat.S_IMODE((mounted_dir(op_dir) / name).stat().st_mode) == 0o644


@pytest.mark.parametrize("inputs", [{"a": {1}}, {"a": float("nan")}, {"a": "\ud800"}])
def test_inputs_that_are_not_plain_are_refused_before_anything_is_written(
    op_dir: Path, inputs: dict[str, Any]
) -> None:
    with pytest.raises(WorkerError, match="inputs are not plain data: the value at") as caught:
        write_inputs(op_dir, inputs)
    assert caught.value.reason is FailureReason.POLICY
    assert [*mounted_dir(op_dir).iterdir()] == []


def test_inputs_over_the_cap_are_refused(op_dir: Path) -> None:
    with pytest.raises(WorkerError, match="more than 10 bytes"):
        write_inputs(op_dir, {"a": "x" * 20}, Limits(size=10))


def test_no_output_file_means_no_outputs(op_dir: Path) -> None:
    assert read_outputs(op_dir) == {}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("outputs", [{}, INPUTS])
def test_outputs_are_read_from_a_pickle_of_any_protocol(
    op_dir: Path, output: Path, outputs: dict[str, Any], protocol: int
) -> None:
    output.write_bytes(pickle.dumps(outputs, protocol))
    assert read_outputs(op_dir) == with_lists(outputs)


@pytest.mark.parametrize("start", ["", "\n\t ", "\ufeff"])
def test_outputs_are_read_from_json(op_dir: Path, output: Path, start: str) -> None:
    output.write_text(start + json.dumps(INPUTS, ensure_ascii=False), "utf-8")
    assert read_outputs(op_dir) == with_lists(INPUTS)


def test_outputs_can_have_another_name(op_dir: Path) -> None:
    (mounted_dir(op_dir) / "result").write_text('{"a": 1}')
    assert read_outputs(op_dir, "result") == {"a": 1}


@settings(max_examples=100, deadline=None, database=None)
@given(st.dictionaries(text, plain, max_size=4))
def test_whatever_goes_in_can_come_out(value: dict[str, Any]) -> None:
    with as_nobody() as work_dir:
        op_dir = make_run_dir(work_dir)
        write_inputs(op_dir, value)
        for name in (INPUT_PICKLE, INPUT_JSON):
            assert read_outputs(op_dir, name) == with_lists(value)


NOT_OUTPUTS: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "neither a pickle nor JSON"),
    "no JSON": (b"hello", "neither a pickle nor JSON"),
    "binary": (b"\x89PNG\xff", "neither a pickle nor UTF-8"),
    "half of JSON": (b'{"a": ', "neither a pickle nor JSON"),
    "two objects": (b"{}{}", "neither a pickle nor JSON"),
    "NaN": (b'{"a": NaN}', "it holds NaN"),
    "infinity": (b'{"a": [-Infinity]}', "it holds -Infinity"),
    "a float too large": (b'{"a": 1e999}', r"the value at \['a'\] is inf"),
    "an int too large": (b'{"a": 1%s}' % (b"0" * 400), "more than 1024 bits"),
    "an int of many digits": (b'{"a": 1%s}' % (b"0" * 5_000), "thousands of digits"),
    "deep JSON": (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
    "deeper than the parser goes": (b"[" * 100_000, "nested deeper than 64"),
    "many values": (b"[" + b"1," * 1_000_000 + b"1]", "more than 1000000 values"),
    "half a surrogate pair": (rb'{"a": "\ud800"}', "half a surrogate pair"),
    "a list": (b"[1]", "of type list: write a dict"),
    "null": (b"null", "of type NoneType: write a dict"),
    "a pickled list": (pickle.dumps([1]), "of type list: write a dict"),
    "a pickled set": (pickle.dumps({"a": {1}}), "it holds a set"),
    "a damaged pickle": (pickle.dumps({"a": 1})[:-3], "the pickle is damaged"),
}


@pytest.mark.parametrize(("data", "sentence"), NOT_OUTPUTS.values(), ids=NOT_OUTPUTS.keys())
def test_what_is_not_a_dict_of_plain_data_is_refused(
    op_dir: Path, output: Path, data: bytes, sentence: str
) -> None:
    output.write_bytes(data)
    with pytest.raises(OutputInvalid, match=sentence) as caught:
        read_outputs(op_dir)
    assert caught.value.reason is FailureReason.OUTPUT_INVALID
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "values"),
    [
        ('{"a": [[], {}, [ ], { }]}', 7),
        ('{"a,[{:": "\\",[{:", "b": 1}', 5),
        (' {"a" : {"b": [1, 2.5, null]}} ', 8),
        ('{"a": 1, "a": 2}', 5),
    ],
)
def test_values_are_counted_before_they_are_made(output: Path, data: str, values: int) -> None:
    output.write_text(data)
    read_outputs(output.parent.parent, limits=Limits(nodes=values))
    with pytest.raises(OutputInvalid, match=f"more than {values - 1} values"):
        read_outputs(output.parent.parent, limits=Limits(nodes=values - 1))


def test_a_file_over_the_cap_is_refused_unread(op_dir: Path, output: Path) -> None:
    with output.open("wb") as file:
        file.truncate(100 * 1024**3)  # sparse: takes no space
    with pytest.raises(OutputInvalid, match="107374182400 bytes and may have 8388608"):
        read_outputs(op_dir)


def test_a_file_that_grows_while_it_is_read_is_refused(
    op_dir: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output.write_bytes(b'{"a": "%s"}' % (b"x" * 100))

    def small(_fd: Any, **_options: Any) -> os.stat_result:
        return os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, 5, 0, 0, 0))

    monkeypatch.setattr("gyoza.worker.op_io.outputs.os.stat", small)
    monkeypatch.setattr("gyoza.worker.op_io.outputs.os.fstat", small)
    with pytest.raises(OutputInvalid):
        read_outputs(op_dir, limits=Limits(size=50))


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "fifo", "socket", "folder"])
def test_only_a_regular_file_is_read(op_dir: Path, output: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"key": "secret"}')
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "link":
                output.symlink_to(secret)
            case "dangling link":
                output.symlink_to("nowhere")
            case "hard link":
                output.hardlink_to(secret)
            case "fifo":
                os.mkfifo(output)
            case "socket":
                listener.bind(str(output))
            case _:
                output.mkdir()
        with pytest.raises(OutputInvalid, match="a link or a special file"):
            read_outputs(op_dir)


def test_a_link_put_there_at_the_last_moment_is_not_followed(
    op_dir: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"key": "secret"}')
    found = os.stat(secret)
    output.symlink_to(secret)

    def harmless(_name: str, **_options: Any) -> os.stat_result:
        return found

    monkeypatch.setattr("gyoza.worker.op_io.outputs.os.stat", harmless)
    with pytest.raises(OutputInvalid, match="cannot be read"):
        read_outputs(op_dir)


def test_a_mounted_folder_that_has_become_a_link_is_not_followed(
    op_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / OUTPUT).write_text('{"key": "secret"}')
    mounted_dir(op_dir).rmdir()
    mounted_dir(op_dir).symlink_to(tmp_path / "other")
    with pytest.raises(OutputInvalid, match="cannot be read"):
        read_outputs(op_dir)


def test_a_file_the_worker_may_not_read_is_refused_with_the_mode_to_use() -> None:
    with as_nobody() as work_dir:
        op_dir = make_run_dir(work_dir)
        (mounted_dir(op_dir) / OUTPUT).write_text("{}")
        (mounted_dir(op_dir) / OUTPUT).chmod(0o000)
        with pytest.raises(OutputInvalid, match=r"Permission denied.*mode 0644"):
            read_outputs(op_dir)
