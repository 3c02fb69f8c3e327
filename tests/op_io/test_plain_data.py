"""The limits on plain data."""

import json
from typing import Any

import pytest
from hypothesis import given, settings

from gyoza.worker.op_io.plain_data import Limits, NotPlainData, plain_copy

from .test_plain_pickle import plain, with_lists


@settings(max_examples=300, deadline=None, database=None)
@given(plain)
def test_the_size_is_that_of_compact_json_within_a_byte_for_each_value(value: Any) -> None:
    as_json = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    generous = 3 * len(as_json) + 2
    assert plain_copy(value, Limits(size=generous)) == with_lists(value)
    if len(as_json) > 1:
        with pytest.raises(NotPlainData, match="bytes as JSON"):
            plain_copy(value, Limits(size=len(as_json) - 1))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_the_depth_may_be_reached_but_not_passed() -> None:
    assert plain_copy(nested(64), Limits()) == nested(64)
    with pytest.raises(NotPlainData, match="deeper than 64"):
        plain_copy(nested(65), Limits())


def test_keys_and_containers_count_as_values() -> None:
    value = {"a": [1, 2], "b": None}  # dict, two keys, list, two numbers, None
    assert plain_copy(value, Limits(nodes=7)) == value
    with pytest.raises(NotPlainData, match="more than 6 values"):
        plain_copy(value, Limits(nodes=6))


def test_a_text_longer_than_all_that_is_taken_is_refused() -> None:
    with pytest.raises(NotPlainData, match="more than 10 bytes"):
        plain_copy("x" * 11, Limits(size=10))


def test_a_value_that_is_not_plain_is_named_with_its_type_and_place() -> None:
    with pytest.raises(NotPlainData, match=r"the value at \['a'\]\[1\] is of type object"):
        plain_copy({"a": [1, object()]}, Limits())
    with pytest.raises(NotPlainData, match="it is of type set"):
        plain_copy({1, 2}, Limits())
    with pytest.raises(NotPlainData, match=r"the value at \['a'\] has a key that is of type int"):
        plain_copy({"a": {1: 2}}, Limits())
