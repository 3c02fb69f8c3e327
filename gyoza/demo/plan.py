"""The runs of the demo, and what must come of each: computed here once more, without containers."""

import ast
import re
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gyoza.demo.texts import Texts, documentation, sources
from gyoza.models import OpRunState

CANCEL_AT = 10
"""Percent of its way that the run to be cancelled may go."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A run to make.

    Attributes:
        name: For people.
        priority: Higher runs first.
        ends: The state it must end in.
        outputs: What it must return.
        says: What the log of a failing run must hold.
    """

    name: str
    image: str
    command: list[str]
    inputs: dict[str, Any]
    priority: int = 5
    ends: OpRunState = OpRunState.COMPLETED
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    says: str = ""


def plan_runs(python: str, shell: str) -> list[Planned]:
    """Return the runs: a dozen in Python, one in shell, one that fails and one to cancel.

    Args:
        python: The image with `ops.py`.
        shell: The image with `op.sh`.
    """

    def run(name: str, inputs: dict[str, Any], outputs: dict[str, Any], **more: Any) -> Planned:
        op = name.partition(" ")[0]
        command = ["python", "/ops.py", op]
        return Planned(
            name=name, image=python, command=command, inputs=inputs, outputs=outputs, **more
        )

    def words(name: str, files: Texts) -> Planned:
        return run(f"words in {name}", {"files": files}, _words(files))

    def search(name: str, files: Texts, pattern: str) -> Planned:
        inputs = {"files": files, "pattern": pattern}
        return run(f"search {name}", inputs, _search(files, pattern))

    def compress(name: str, files: Texts, priority: int = 5) -> Planned:
        return run(f"compress {name}", {"files": files}, _compress(files), priority=priority)

    def outline(name: str, files: Texts, priority: int = 5) -> Planned:
        return run(f"outline of {name}", {"files": files}, _outline(files), priority=priority)

    docs, everything = documentation(), sources()
    text = "\n".join(docs.values())
    to_cancel = run(
        "similar lines", {"files": sources("models")}, {}, priority=9, ends=OpRunState.CANCELLED
    )
    to_fail = run(
        "outline of the docs",
        {"files": docs},
        {},
        priority=8,
        ends=OpRunState.FAILED,
        says="SyntaxError",
    )
    in_shell = Planned(
        name="words, in plain shell",
        image=shell,
        command=["sh", "/op.sh"],
        inputs={"text": text},
        priority=8,
        outputs=_most_often(text),
    )
    return [
        to_cancel,
        to_fail,
        in_shell,
        compress("everything", everything, priority=7),
        outline("everything", everything, priority=7),
        words("everything", everything),
        words("the docs", docs),
        words("server", sources("server")),
        words("worker", sources("worker")),
        search("for tasks", everything, r"\bstart_soon\("),
        search("for shields", sources("worker"), r"shield=True"),
        search("for routes", sources("server"), r"@router\.(get|post|patch)"),
        compress("models", sources("models")),
        outline("client", sources("client")),
        outline("cli", sources("cli")),
    ]


def _words(texts: Texts) -> dict[str, Any]:
    counts = Counter(re.findall("[a-z]+", " ".join(texts.values()).lower()))
    often = [word for word, _ in counts.most_common(3)]
    return {"words": counts.total(), "different": len(counts), "often": often}


def _most_often(text: str) -> dict[str, Any]:
    """Count as the shell does: equally frequent words in the order of the alphabet."""
    counts = Counter(re.findall("[a-z]+", text.lower()))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3])


def _search(texts: Texts, pattern: str) -> dict[str, Any]:
    found = [
        f"{name}:{number}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(pattern, line)
    ]
    return {"lines": len(found), "first": found[:1]}


def _compress(texts: Texts) -> dict[str, Any]:
    text = "".join(texts.values()).encode()
    compressed = len(zlib.compress(text, 9))
    return {
        "bytes": len(text),
        "compressed": compressed,
        "ratio": round(len(text) / compressed, 2),
    }


def _outline(texts: Texts) -> dict[str, Any]:
    nodes = [node for text in texts.values() for node in ast.walk(ast.parse(text))]

    def count(*kinds: type[ast.AST]) -> int:
        return sum(isinstance(node, kinds) for node in nodes)

    return {
        "functions": count(ast.FunctionDef, ast.AsyncFunctionDef),
        "async": count(ast.AsyncFunctionDef),
        "classes": count(ast.ClassDef),
    }
