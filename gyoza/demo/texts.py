"""What the ops of the demo read: gyoza's own sources and documentation."""

from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import gyoza

Texts = dict[str, str]
"""Texts by name."""


def sources(*packages: str) -> Texts:
    """Return gyoza's modules by path, of all of it or of these packages."""
    found = _modules(files(gyoza), "gyoza")
    wanted = tuple(f"gyoza/{package}/" for package in packages)
    return {name: text for name, text in found.items() if not wanted or name.startswith(wanted)}


def documentation() -> Texts:
    """Return the pages of a checkout, or the README that an installed package has with it."""
    root = Path(gyoza.__file__).parents[1]
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    if pages[1:]:
        return {str(page.relative_to(root)): page.read_text(encoding="utf-8") for page in pages}
    return {"README.md": str(metadata.metadata("gyoza-worker").json["description"])}


def _modules(folder: Traversable, name: str) -> Texts:
    found: Texts = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            found |= _modules(entry, path)
        elif entry.name.endswith(".py"):
            found[path] = entry.read_text(encoding="utf-8")
    return found
