"""Pickles of plain data are loaded, all others refused, none is ever run."""

import collections
import decimal
import io
import pickle
import pickletools
import struct
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gyoza.worker.op_io.plain_data import Limits, NotPlainData
from gyoza.worker.op_io.plain_pickle import load_plain_pickle

LIMITS = Limits(size=100_000, depth=10, nodes=2_000)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(text, inner, max_size=5)
    ),
    max_leaves=20,
)
quick = settings(max_examples=300, deadline=None, database=None)


def with_lists(value: Any) -> Any:
    """Return `value` with its tuples turned into lists."""
    if isinstance(value, dict):
        return {key: with_lists(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [with_lists(item) for item in cast("list[Any]", value)]
    return value


def same(one: Any, other: Any) -> bool:
    """Return whether both are equal, their types too: True is not 1, and 1 is not 1.0."""
    return repr(one) == repr(other)


@quick
@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL), st.booleans())
def test_plain_data_comes_back_as_it_was_from_every_protocol(
    value: Any, protocol: int, optimized: bool
) -> None:
    data = pickle.dumps(value, protocol)
    if optimized:
        data = pickletools.optimize(data)
    assert same(load_plain_pickle(data, Limits()), with_lists(value))


@quick
@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_what_python_s_own_pickler_writes_is_read_too(value: Any, protocol: int) -> None:
    data = io.BytesIO()
    pickle._Pickler(data, protocol).dump(value)  # pyright: ignore[reportPrivateUsage]
    assert same(load_plain_pickle(data.getvalue(), Limits()), with_lists(value))


def test_shared_parts_are_read_as_copies() -> None:
    part = {"a": [1, 2]}
    loaded = load_plain_pickle(pickle.dumps([part, part]), LIMITS)
    assert loaded == [part, part]
    assert loaded[0] is not loaded[1]


opcodes = st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes])
arguments = st.sampled_from(
    [
        b"",
        b"0\n",
        b"1\n",
        b"\x00",
        b"\x01",
        b"\x02ab",
        b"\x01\x00\x00\x00a",
        b"os\nsystem\n",
        b"x\n",
    ]
)
programs = st.lists(st.tuples(opcodes, arguments), max_size=30).map(
    lambda steps: b"".join(code + argument for code, argument in steps) + b"."
)


@settings(max_examples=1_000, deadline=None, database=None)
@given(programs | st.binary(max_size=60))
def test_a_hostile_program_is_refused_or_means_what_pickle_says(program: bytes) -> None:
    try:
        loaded = load_plain_pickle(program, LIMITS)
    except NotPlainData:
        return
    try:
        expected = pickle.loads(program)
    except (pickle.UnpicklingError, OverflowError):
        assert b"\x95" in program  # we do not care how long a frame says it is
    else:
        assert same(loaded, with_lists(expected))


@quick
@given(plain, st.integers(0, 5), st.data())
def test_a_damaged_pickle_is_refused_or_holds_plain_data(
    value: Any, protocol: int, data: st.DataObject
) -> None:
    damaged = bytearray(pickle.dumps(value, protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        loaded = load_plain_pickle(bytes(damaged), LIMITS)
    except NotPlainData:
        return
    assert same(loaded, with_lists(loaded))


class Evil:
    def __reduce__(self) -> Any:
        return (eval, ("1/0",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_called(protocol: int) -> None:
    with pytest.raises(NotPlainData, match=r"an object of .*eval"):
        load_plain_pickle(pickle.dumps({"a": Evil()}, protocol), LIMITS)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (decimal.Decimal(1), "an object of 'decimal' 'Decimal'"),
        (collections.Counter("a"), "an object of 'collections' 'Counter'"),
        ({1, 2}, "a set"),
        (frozenset({1}), r"something other than plain data \(FROZENSET\)"),
        (b"abc", "bytes"),
        (bytearray(b"abc"), "bytes"),
        (1j, "an object of 'builtins' 'complex'"),
        ({"a": {1: 2}}, "a key that is of type int"),
        ({("a",): 2}, "a key that is of type tuple"),
        ([float("nan")], r"the value at \[0\] is nan"),
        ({"a": {"b": [0, float("inf")]}}, r"the value at \['a'\]\['b'\]\[1\] is inf"),
        ({"a": 2**1024}, r"the value at \['a'\] is a number of more than 1024 bits"),
        ({"a": "\ud800"}, "half a surrogate pair"),
        ({"\udfff": 1}, "half a surrogate pair"),
    ],
)
def test_what_is_not_plain_is_named(value: Any, sentence: str) -> None:
    with pytest.raises(NotPlainData, match=sentence):
        load_plain_pickle(pickle.dumps(value, 5), LIMITS)


@pytest.mark.parametrize("code", ["\x82\x01", "\x83\x01\x00", "P1\n", "\x80\x02K\x01Q", "\x97"])
def test_extensions_persistent_ids_and_buffers_are_unknown(code: str) -> None:
    with pytest.raises(NotPlainData, match="something other than plain data"):
        load_plain_pickle(code.encode("latin-1") + b".", LIMITS)


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"N",  # no end
        b".",  # nothing on the stack
        b"NN.",  # too much
        b"(N.",  # a mark left
        b"e.",  # no mark
        b"\x80\x02h\x07.",  # an empty memo slot
        b"\x94.",  # nothing to memoise
        b"Na.",  # nothing to append to
        b"}Na.",  # append to a dict
        b"]X\x01\x00\x00\x00aNs.",  # set an item of a list
        b"}(X\x01\x00\x00\x00au.",  # a key without a value
        b"N\x86.",  # a tuple of two of one value
        b"Inonsense\n.",
        rb"S'\q'" + b"\n.",  # a text of Python 2 with an escape there is not
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",  # a text of 2**63 bytes
        b"L" + b"9" * 5_000 + b"L\n.",
    ],
)
def test_a_broken_program_is_refused(program: bytes) -> None:
    with pytest.raises(NotPlainData, match="the pickle is damaged"):
        load_plain_pickle(program, LIMITS)


def test_a_protocol_that_is_not_known_is_refused() -> None:
    with pytest.raises(NotPlainData, match=r"has protocol 78, not \d or lower"):
        load_plain_pickle(b"\x80N}.", LIMITS)


def test_a_value_in_the_wrong_place_is_not_printed_for_it_may_be_endless() -> None:
    bomb = pickle.dumps({"a": [[[0] * 9] * 9] * 9})[:-1] + b"\x94Na."  # append None to a dict
    with pytest.raises(NotPlainData, match="damaged") as caught:
        load_plain_pickle(bomb, LIMITS)
    assert str(caught.value.__cause__) == "of type dict"


def test_an_aliasing_bomb_is_refused() -> None:
    value: list[Any] = []
    for _ in range(30):
        value = [value] * 10
    program = pickle.dumps(value)  # 10 ** 30 values
    assert len(program) < 1_000
    with pytest.raises(NotPlainData, match="more than 2000 values"):
        load_plain_pickle(program, Limits(nodes=2_000))


def test_a_long_text_repeated_many_times_is_refused() -> None:
    program = pickle.dumps(["x" * 1_000] * 150)
    assert len(program) < 2_000
    with pytest.raises(NotPlainData, match="more than 100000 bytes as JSON"):
        load_plain_pickle(program, LIMITS)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04]\x94h\x00a.",  # a list that holds itself
        b"\x80\x04}\x94X\x01\x00\x00\x00ah\x00s.",
        b"\x80\x04](" + b"](" * 100_000 + b"e" * 100_000 + b"e.",
        b"\x80\x04)" + b"\x85" * 50_000 + b".",
    ],
)
def test_deep_nesting_and_recursion_are_refused(program: bytes) -> None:
    limits = Limits(size=1_000_000, nodes=1_000_000)
    with pytest.raises(NotPlainData, match="nested deeper than 64 levels"):
        load_plain_pickle(program, limits)


def test_a_deeply_nested_tuple_is_never_hashed() -> None:
    program = b"\x80\x04})" + b"\x85" * 500_000 + b"Ns."  # crashes pickle.loads
    with pytest.raises(NotPlainData, match="a key that is of type tuple"):
        load_plain_pickle(program, Limits())


def test_a_far_away_memo_slot_costs_nothing() -> None:
    program = b"\x80\x04Nr" + struct.pack("<I", 2**32 - 1) + b"."  # pickle.loads takes 64 GB
    assert load_plain_pickle(program, LIMITS) is None


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (b"N", "more than 2000 values"),
        (b"]", "more than 2000 values"),
        (b"\x80\x04", "more than 2000 values"),
        (b"(", "nested deeper than 10"),
        (b"\x94", "damaged"),  # more memo slots than values
    ],
)
def test_the_memory_and_time_that_instructions_take_are_limited(step: bytes, sentence: str) -> None:
    with pytest.raises(NotPlainData, match=sentence):
        load_plain_pickle(b"N" + step * 40_000 + b".", LIMITS)


def test_the_size_is_limited_before_anything_is_read() -> None:
    with pytest.raises(NotPlainData, match="more than 100000 bytes"):
        load_plain_pickle(b"x" * 100_001, LIMITS)
