"""The table of docs/cancellation.md against the tests: each row is held by one at least."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cancellation.md"
ROW = re.compile(r"^\| `([a-z-]+)` \|", re.MULTILINE)


def is_marker(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.row"


def rows_of(marker: ast.AST) -> list[str]:
    assert isinstance(marker, ast.Call)
    return [ast.literal_eval(argument) for argument in marker.args]


def markers_in(source: str) -> tuple[list[str], list[str]]:
    """Return the rows named by markers of tests, and those named by markers anywhere."""
    tree = ast.parse(source)
    tests = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    ]
    at_tests = [marker for test in tests for marker in test.decorator_list if is_marker(marker)]
    anywhere = [node for node in ast.walk(tree) if is_marker(node)]
    return (
        [row for marker in at_tests for row in rows_of(marker)],
        [row for marker in anywhere for row in rows_of(marker)],
    )


def files_of_tests() -> list[Path]:
    return sorted((ROOT / "tests").rglob("test_*.py"))


def test_every_row_of_the_table_is_held_by_a_test_and_no_test_names_another() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    held = {row for path in files_of_tests() for row in markers_in(path.read_text("utf-8"))[0]}
    assert len(rows) == len(set(rows))
    assert set(rows) == held


def test_markers_stand_at_tests_alone() -> None:
    for path in files_of_tests():
        of_tests, anywhere = markers_in(path.read_text("utf-8"))
        assert sorted(of_tests) == sorted(anywhere), path


def test_a_marker_counts_only_at_a_test() -> None:
    source = (
        '@pytest.mark.row("a", "b")\ndef test_one(): ...\n'
        '@pytest.mark.row("c")\ndef helper(): ...\n'
        '@pytest.mark.rows("d")\nasync def test_two(): ...\n'
    )
    assert markers_in(source) == (["a", "b"], ["a", "b", "c"])
