"""Reads a hostile output of 8 MiB in little memory: python -m tests.op_io.little_memory NAME."""

import pickle
import resource
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from gyoza.worker.errors import OutputInvalid
from gyoza.worker.op_io import OUTPUT, Limits, make_op_dir, mounted_dir, read_outputs

MEMORY = 256 * 1024 * 1024
"""Bytes that reading the outputs of one run may take, whatever they are."""

CPU_S = 60
"""Seconds of the processor, of which every one of these needs less than five."""

SIZE = Limits().size
MOST = Limits().nodes
KEY = b"X\x01\x00\x00\x00a"  # the text "a"
BEGIN = b"\x80\x04}" + KEY + b"\x94"  # {"a": what follows}


def _text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "json: lists": (lambda: b"[" + b"[]," * (SIZE // 3 - 2) + b"[]]", "more than 1000000 values"),
    "json: brackets": (lambda: b"[" * SIZE, "more than 1000000 values"),
    "json: numbers": (lambda: b"[" + b"1," * (SIZE // 2 - 2) + b"1]", "more than 1000000 values"),
    "json: as many dicts as may be": (
        lambda: b'{"a":[' + b'{"a":1},' * (MOST // 3 - 5) + b"{}]}",
        "read",
    ),
    "json: many keys": (
        lambda: b"{" + b",".join(b'"%x":[]' % i for i in range(MOST // 2 - 5)) + b"}",
        "read",
    ),
    "json: a text that never ends": (lambda: b'{"a":"' + b',\\"' * (SIZE // 3 - 10), "nor JSON"),
    "json: a wide text": (
        lambda: b'{"a":"' + b"a" * (SIZE - 100) + "\U0001f95f".encode() + b'"}',
        "read",
    ),
    "json: long numbers": (
        lambda: b'{"a":[' + b",".join([b"9" * 4299] * 1900) + b"]}",
        "more than 1024 bits",
    ),
    "json: a long fraction": (
        lambda: b'{"a":9007199254740993.' + b"0" * (SIZE - 100) + b"1}",
        "read",
    ),
    "pickle: as many dicts as may be": (
        lambda: BEGIN + b"](" + b"}h\x00Ns" * (MOST // 3 - 5) + b"es.",
        "read",
    ),
    "pickle: everything remembered": (
        lambda: BEGIN + b"](" + b"]\x94" * (MOST - 10) + b"es.",
        "read",
    ),
    "pickle: one thing millions of times": (
        lambda: BEGIN + b"](" + b"h\x00" * (SIZE // 2 - 20) + b"es.",
        "more than 1000000 values",
    ),
    "pickle: a wide text of control characters": (
        lambda: BEGIN + _text(b"\1" * (SIZE - 100) + "\U0001f95f".encode()) + b"s.",
        "bytes as JSON",
    ),
    "pickle: one long number": (
        lambda: BEGIN + b"\x8b" + struct.pack("<I", SIZE - 100) + b"\x7f" * (SIZE - 100) + b"s.",
        "more than 1024 bits",
    ),
    "pickle: long numbers as text": (
        lambda: BEGIN + b"(" + (b"I" + b"9" * 4299 + b"\n") * 1900 + b"ls.",
        "more than 1024 bits",
    ),
    "pickle: a list within a list and so on": (
        lambda: BEGIN + b"]" * (MOST - 10) + b"a" * (MOST - 11) + b"s.",
        "deeper than 64 levels",
    ),
    "pickle: steps that do nothing": (lambda: b"\x80\x04" * (SIZE // 2 - 1) + b"}.", "read"),
    "pickle: a million numbers": (lambda: pickle.dumps({"a": [*range(MOST - 10)]}), "read"),
}


def main() -> None:
    """Read the output called NAME; say `read` or why it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        make_op_dir(Path(folder))
        data = HOSTILE[sys.argv[1]][0]()
        assert len(data) <= SIZE
        (mounted_dir(Path(folder)) / OUTPUT).write_bytes(data)
        del data
        now = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        try:
            read_outputs(Path(folder))
            print("read")  # noqa: T201
        except OutputInvalid as error:
            print(error)  # noqa: T201


if __name__ == "__main__":
    main()
