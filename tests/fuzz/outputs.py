"""Targets: what an op may leave as its outputs."""

import codecs
import io
import json
import pickle
import tempfile
from pathlib import Path
from pickletools import genops
from typing import Any, NoReturn

from gyoza.worker.errors import OutputInvalid
from gyoza.worker.op_io import OUTPUT, Limits, make_op_dir, mounted_dir, read_outputs
from gyoza.worker.op_io.plain_data import NotPlainData
from gyoza.worker.op_io.plain_pickle import load_plain_pickle
from tests.fuzz.target import Target, nothing_executed

LIMITS = Limits(size=20_000, depth=8, nodes=2_000)

DATA: dict[str, Any] = {
    "text": "gyoza \u00fc \U0001f95f",
    "numbers": [0, -1, 2**70, 1.5, 1e300],
    "nested": {"a": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}], "b": None},
    "truth": [True, False],
}
SHARED = [DATA] * 3
PROGRAMS = (
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
)

for codec in ("raw_unicode_escape", "utf_8_sig"):
    codecs.lookup(codec)  # imported at its first use, which would look like an attack


class _Reader(pickle._Unpickler):  # pyright: ignore[reportPrivateUsage]
    """Python's own, in which a far-away memo slot takes no memory; it loads no classes."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise AssertionError(f"{module}.{name} was let through")


def check_pickle(data: bytes) -> None:
    """Whatever is accepted is plain, small, and what the pickle module makes of it."""
    try:
        with nothing_executed():
            loaded = load_plain_pickle(data, LIMITS)
    except NotPlainData:
        return
    as_json = _as_json(loaded)
    names = {opcode.name for opcode, _, _ in genops(data)}
    if names & {"INT", "LONG", "FRAME"}:  # of which nobody writes the forms that are read otherwise
        return
    assert as_json == _as_json(_Reader(io.BytesIO(data)).load())


def check_outputs(data: bytes) -> None:
    """Outputs are read as a dict of plain data, or refused with one short sentence."""
    with tempfile.TemporaryDirectory() as folder:
        make_op_dir(Path(folder))
        (mounted_dir(Path(folder)) / OUTPUT).write_bytes(data)
        try:
            with nothing_executed():
                outputs = read_outputs(Path(folder), limits=LIMITS)
        except OutputInvalid as error:
            sentence = str(error)
            assert sentence.isprintable(), sentence
            assert len(sentence) < 1500, sentence
            return
    as_json = _as_json(outputs)
    if data[:1] not in b"\x80(}":
        assert as_json == _as_json(json.loads(data.decode("utf-8-sig")))


def _as_json(value: Any) -> str:
    """Return the value as JSON, by which True is not 1, and see that it keeps to the limits."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    assert len(text.encode()) <= LIMITS.size
    assert _depth(value) <= LIMITS.depth
    return text


def _depth(value: Any) -> int:
    match value:
        case dict():
            return 1 + max(map(_depth, value.values()), default=0)  # pyright: ignore[reportUnknownArgumentType]
        case list() | tuple():
            return 1 + max(map(_depth, value), default=0)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return 0


_PICKLES = (
    *(pickle.dumps(value, protocol) for value in (DATA, SHARED) for protocol in range(6)),
    *PROGRAMS,
)
_JSON = (json.dumps(DATA).encode(), json.dumps(DATA, ensure_ascii=False).encode("utf-8-sig"))

PICKLES = Target(check_pickle, _PICKLES)
OUTPUTS = Target(check_outputs, (*_JSON, *_PICKLES, b'{"a": NaN}', b'{"a": "[[,\\"{"}', b"[" * 50))
