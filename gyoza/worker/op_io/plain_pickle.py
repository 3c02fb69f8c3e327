"""Loads pickles of plain data without ever running one.

A pickle is a program, and `pickle.Unpickler` runs it: even without classes to call, a few bytes
make it reserve gigabytes (a far-away memo slot) or overflow the C stack (hashing a deeply nested
tuple as a key). So this module is an interpreter of its own for the few instructions that build
plain data; the rest are unknown to it. It has no way to name a class, a function or a persistent
id.
"""

from collections.abc import Callable
from pickle import HIGHEST_PROTOCOL
from pickletools import genops
from typing import Any, ClassVar, cast

from gyoza.worker.op_io.plain_data import Limits, NotPlainData, plain_copy, shorten

_STEPS_PER_VALUE = 5
"""Mark, push, memoise, append or set: no pickler needs more."""

_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_PUSH_CONSTANT: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}
_TUPLE_LENGTH = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_REFUSED = {
    "GLOBAL": "an object",
    "STACK_GLOBAL": "an object",
    "EMPTY_SET": "a set",
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), "bytes"),
}


def load_plain_pickle(data: bytes, limits: Limits) -> Any:
    """Return the plain data in a pickle of any protocol, tuples as lists.

    Raises:
        NotPlainData: If the pickle is damaged, holds anything but plain data, or more of it than
            the limits allow.
    """
    if len(data) > limits.size:
        raise NotPlainData(f"it has more than {limits.size} bytes")
    machine = _Machine(limits)
    try:
        for opcode, argument, _position in genops(data):
            machine.step(opcode.name, argument)
        value = machine.result()
    except NotPlainData:
        raise
    except (ValueError, IndexError, KeyError, TypeError, Warning) as error:
        # pickletools warns of strange escapes in Python 2 strings, and warnings can be errors.
        raise NotPlainData("the pickle is damaged") from error
    return plain_copy(value, limits)


class _Machine:
    """The stack and the memo of a pickle being read.

    As in pickle's own, a mark puts the stack aside and starts an empty one above it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._steps = 0
        self._values = 0
        self._stack: list[Any] = []
        self._aside: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        self._steps += 1
        if self._steps > self._limits.nodes * _STEPS_PER_VALUE:
            raise NotPlainData(f"it has more than {self._limits.nodes} values")
        if name in _PUSH_CONSTANT:
            self._push(_PUSH_CONSTANT[name]())
        elif name in _TUPLE_LENGTH:
            self._push(tuple(self._pop(_TUPLE_LENGTH[name])))
        elif name in self._actions:
            self._actions[name](self, argument)
        else:
            raise NotPlainData(f"it holds {self._describe(name, argument)}")

    def result(self) -> Any:
        """Return the one value left."""
        if self._aside or len(self._stack) != 1:
            raise NotPlainData("the pickle is damaged")
        self._memo.clear()  # before anything is copied
        return self._stack.pop()

    def _nothing(self, _argument: Any) -> None:
        pass

    def _protocol(self, number: int) -> None:
        if number > HIGHEST_PROTOCOL:
            raise NotPlainData(f"the pickle has protocol {number}, not {HIGHEST_PROTOCOL} or lower")

    def _push(self, value: Any) -> None:
        self._values += 1
        if self._values > self._limits.nodes:
            raise NotPlainData(f"it has more than {self._limits.nodes} values")
        self._stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError(count)
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _mark(self, _argument: Any) -> None:
        if len(self._aside) >= self._limits.depth:
            raise NotPlainData(f"it is nested deeper than {self._limits.depth} levels")
        self._aside.append(self._stack)
        self._stack = []

    def _make_list(self, _argument: Any) -> None:
        self._push(self._above_mark())

    def _make_tuple(self, _argument: Any) -> None:
        self._push(tuple(self._above_mark()))

    def _make_dict(self, _argument: Any) -> None:
        self._push(self._set({}, self._above_mark()))

    def _above_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._aside.pop()
        return values

    def _append_one(self, _argument: Any) -> None:
        self._append(self._pop(1))

    def _append_many(self, _argument: Any) -> None:
        self._append(self._above_mark())

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise TypeError(shorten(target))
        cast("list[Any]", target).extend(values)

    def _update_one(self, _argument: Any) -> None:
        self._update(self._pop(2))

    def _update_many(self, _argument: Any) -> None:
        self._update(self._above_mark())

    def _update(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise TypeError(shorten(target))
        self._set(cast("dict[str, Any]", target), pairs)

    def _set(self, target: dict[str, Any], pairs: list[Any]) -> dict[str, Any]:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) is not str:  # before it is hashed
                raise NotPlainData(f"it has a key that is {shorten(key)}")
            target[key] = value
        return target

    def _put(self, slot: int) -> None:
        self._memo[slot] = self._stack[-1]
        if len(self._memo) > self._values:  # a pickler memoises a value once at most
            raise ValueError(slot)

    def _put_next(self, _argument: Any) -> None:
        self._put(len(self._memo))

    def _get(self, slot: int) -> None:
        self._stack.append(self._memo[slot])

    def _describe(self, name: str, argument: Any) -> str:
        what = _REFUSED.get(name, f"something other than plain data ({name})")
        if name == "GLOBAL":
            return f"{what} of {shorten(argument)}"
        if name == "STACK_GLOBAL":
            return f"{what} of {' '.join(shorten(part) for part in self._stack[-2:])}"
        return what

    _actions: ClassVar[dict[str, Callable[["_Machine", Any], None]]] = {
        **dict.fromkeys(("FRAME", "STOP"), _nothing),
        "PROTO": _protocol,
        **dict.fromkeys(_NUMBERS | _TEXTS, _push),
        **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
        **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
        "MEMOIZE": _put_next,
        "MARK": _mark,
        "LIST": _make_list,
        "TUPLE": _make_tuple,
        "DICT": _make_dict,
        "APPEND": _append_one,
        "APPENDS": _append_many,
        "SETITEM": _update_one,
        "SETITEMS": _update_many,
    }
