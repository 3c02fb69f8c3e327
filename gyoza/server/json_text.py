"""JSON as text: what may be large is stored and sent as it is, and never made values of again.

Python's JSON in C keeps the interpreter to itself for as long as it works, in whatever thread: a
megabyte of small values takes long enough to keep a heartbeat waiting. So what is large is written
by the same module's Python code, which takes turns with other threads.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

PIECES = 10_000
"""Pieces of text that are joined in one go."""

_PLAIN = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class JsonText(str):
    """Text that is JSON: the database takes it as it is."""

    __slots__ = ()


EMPTY = JsonText("{}")


def write_text(value: Any, *, large: bool = False) -> JsonText:
    """Return a value as JSON.

    Args:
        value: Plain data.
        large: Whether C code is not to write it in one go.
    """
    if not large:
        return JsonText(_PLAIN.encode(value))
    pieces = _PLAIN.iterencode(value)
    return JsonText("".join(iter(lambda: "".join(islice(pieces, PIECES)), "")))


def for_column(value: Any) -> str:
    """Return what a JSON column of the database stores for a value."""
    return value if isinstance(value, JsonText) else json.dumps(value)


def join_object(small: Mapping[str, Any], texts: Mapping[str, bytes]) -> bytes:
    """Return an object as JSON, of whose fields some are JSON already.

    Args:
        small: All its fields; the values of those in `texts` are not looked at.
        texts: Names of fields and the JSON of their values.
    """
    rest = {name: value for name, value in small.items() if name not in texts}
    fields = [_PLAIN.encode(rest)[1:-1].encode()] if rest else []
    fields += [b'"%b":%b' % (name.encode(), text) for name, text in texts.items()]
    return b"{%b}" % b",".join(fields)


def join_list(items: Iterable[bytes]) -> bytes:
    """Return a list as JSON, of items that are JSON already."""
    return b"[%b]" % b",".join(items)
