"""The import table in docs/architecture.md is what the code does."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ROOT / "gyoza"


def table() -> dict[str, set[str]]:
    """Return what each package may import, by the document."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(gyoza\.\w+)` \|[^|]*\| ([^|]*) \|$", text, re.MULTILINE)
    allowed = {package: set(re.findall(r"gyoza\.\w+", rule)) for package, rule in rows}
    for package, rule in rows:
        if rule.startswith("everything"):
            allowed[package] = allowed.keys() - allowed[package]
    return allowed


def modules() -> Iterator[tuple[str, Path]]:
    for path in PACKAGES.rglob("*.py"):
        inside = path.relative_to(PACKAGES).with_suffix("")
        if str(inside) != "__init__":
            yield f"gyoza.{inside.parts[0]}", path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
            yield from (str(a.value) for a in node.args if isinstance(a, ast.Constant))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module or ""


def test_every_package_is_in_the_table() -> None:
    assert {package for package, _ in modules()} == set(table())


@pytest.mark.parametrize("package", sorted(table()))
def test_a_package_imports_only_what_the_table_allows(package: str) -> None:
    allowed = table()[package] | {package}
    for owner, path in modules():
        if owner == package:
            names = [n for n in imports(path) if n.startswith("gyoza.")]
            wrong = {n for n in names if ".".join(n.split(".")[:2]) not in allowed}
            assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize(
    ("library", "owner"),
    [
        ("docker", "gyoza/worker/containers"),
        ("requests", "gyoza/worker/containers"),
        ("pynvml", "gyoza/worker/worker_context"),
        ("sqlalchemy", "gyoza/server"),
        ("fastapi", "gyoza/server"),
        ("typer", "gyoza/cli"),
    ],
)
def test_a_library_is_spoken_to_in_one_place(library: str, owner: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for _, path in modules()
        if library in {name.split(".")[0] for name in imports(path)}
    }
    assert users
    assert all(user.startswith(owner) for user in users), users
