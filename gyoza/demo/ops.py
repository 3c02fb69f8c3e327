# pyright: basic, reportMissingImports=false
"""The ops of the demo, and an example of how ops in Python are written.

The image has this file as /ops.py and the op helper, `gyoza/op.py`, as the module `gyoza_op`. A
run's command names the op: `python /ops.py words`. Its inputs are the function's arguments, what
the function returns are its outputs.
"""

import ast
import re
import sys
import zlib
from collections import Counter
from difflib import SequenceMatcher

from gyoza_op import info, main, progress


def words(files: dict[str, str], most: int = 3) -> dict:
    """Count the words of some texts, given by name."""
    counts = Counter()
    for done, text in enumerate(files.values(), start=1):
        counts.update(re.findall(r"[a-z]+", text.lower()))
        progress(100 * done / len(files))
    info(f"{len(counts)} different words in {len(files)} files")
    often = [word for word, _ in counts.most_common(most)]
    return {"words": counts.total(), "different": len(counts), "often": often}


def search(files: dict[str, str], pattern: str) -> dict:
    """Find the lines that match a regular expression."""
    wanted = re.compile(pattern)
    found = []
    for done, (name, text) in enumerate(files.items(), start=1):
        lines = enumerate(text.splitlines(), start=1)
        found += [f"{name}:{number}" for number, line in lines if wanted.search(line)]
        progress(100 * done / len(files))
    info(f"{len(found)} lines match {pattern}")
    return {"lines": len(found), "first": found[:1]}


def compress(files: dict[str, str]) -> dict:
    """Compress some texts together, ever harder."""
    text = "".join(files.values()).encode()
    sizes = []
    for level in range(1, 10):
        sizes.append(len(zlib.compress(text, level)))
        progress(100 * level / 9)
    ratio = round(len(text) / sizes[-1], 2)
    info(f"{len(text)} bytes become {sizes[-1]}", levels=sizes)
    return {"bytes": len(text), "compressed": sizes[-1], "ratio": ratio}


def outline(files: dict[str, str]) -> dict:
    """Count the functions and classes of some Python sources."""
    counts = Counter()
    for done, (name, source) in enumerate(files.items(), start=1):
        # A text that is not Python raises: the traceback goes to the log, and the run is FAILED.
        counts.update(type(node).__name__ for node in ast.walk(ast.parse(source, name)))
        progress(100 * done / len(files))
    info(f"{counts.total()} nodes of syntax in {len(files)} files")
    functions = counts["FunctionDef"] + counts["AsyncFunctionDef"]
    return {
        "functions": functions,
        "async": counts["AsyncFunctionDef"],
        "classes": counts["ClassDef"],
    }


def similar(files: dict[str, str], at_least: float = 0.9) -> dict:
    """Compare every line with every other one: real work that takes its time."""
    lines = sorted({line.strip() for text in files.values() for line in text.splitlines()})
    info(f"{len(lines)} lines make {len(lines) * (len(lines) - 1) // 2} pairs")
    pairs = 0
    for number, line in enumerate(lines):
        for other in lines[number + 1 :]:
            pairs += SequenceMatcher(None, line, other, autojunk=False).ratio() >= at_least
        progress(100 * number / len(lines))
    return {"pairs": pairs}


if __name__ == "__main__":
    ops = {op.__name__: op for op in (words, search, compress, outline, similar)}
    main(ops[sys.argv.pop(1)])
