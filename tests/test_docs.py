"""The README and the documentation against the code they speak of."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from gyoza.cli.main import app
from gyoza.models import limits
from gyoza.models.limits import KIB, MIB
from gyoza.server.app import create_app
from gyoza.server.keyring import Keyring
from gyoza.server.routes.bodies import DefinitionBody
from tests.benchmarks.catalogue import BENCHMARKS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
GYOZA: Any = typer.main.get_command(app)  # typer keeps these types to itself

on_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, *languages: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def command_lines(page: Path) -> list[str]:
    lines = "\n".join(blocks(page, "sh", "ini")).replace("\\\n", " ")
    return re.findall(r"(?:^|\$\(|/)gyoza (.+?)\)?$", lines, re.MULTILINE)


@on_each_page
def test_every_link_leads_to_a_file_and_heading_that_exist(page: Path) -> None:
    for link in re.findall(r"\]\(((?!https:)[^)]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@on_each_page
def test_every_command_line_is_one_that_gyoza_takes(page: Path) -> None:
    for line in command_lines(page):
        words = shlex.split(line.replace("$", ""))
        command = GYOZA
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), f"gyoza {line}: no such command"
        command.make_context(f"gyoza {line}", words)


@on_each_page
def test_every_flag_in_the_text_is_one_of_gyozas(page: Path) -> None:
    def flags(command: Any) -> set[str]:
        own = {option for parameter in command.params for option in parameter.opts}
        return own.union(*map(flags, getattr(command, "commands", {}).values()))

    named = set(re.findall(r"`(?:gyoza [^`]*)?(--[a-z-]+)", prose(page)))
    assert named <= flags(GYOZA) | {"--help", "--"}


@on_each_page
def test_every_benchmark_named_is_one(page: Path) -> None:
    for line in re.findall(r"^just bench (.+)$", "\n".join(blocks(page, "sh")), re.MULTILINE):
        words = [word for word in shlex.split(line, comments=True) if "." not in word]
        assert {word for word in words if word[0] != "-"} <= BENCHMARKS.keys(), line


@on_each_page
def test_every_variable_is_known_to_the_code(page: Path) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("gyoza/**/*.py"))
    named = set(re.findall(r"GYOZA_[A-Z_]+\b", page.read_text(encoding="utf-8")))
    assert named <= set(re.findall(r"GYOZA_[A-Z_]+\b", code))


@on_each_page
def test_every_python_example_is_python_that_imports_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        tree = compile(block, page.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        assert isinstance(tree, ast.Module)
        imports = [
            f"from {node.module} import {alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]
        for statement in imports:
            exec(statement.replace("gyoza_op", "gyoza.op"), {})


@on_each_page
def test_every_definition_shown_is_one_that_the_server_takes(page: Path) -> None:
    for block in blocks(page, "yaml"):
        DefinitionBody.model_validate(yaml.safe_load(block))


@on_each_page
def test_every_op_shown_runs_outside_a_container(page: Path, tmp_path: Path) -> None:
    inputs = {"text": "one\ntwo words", "pattern": "two"}
    outputs = {"count": {"words": 3}, "search": {"lines": [2]}}
    shutil.copy(ROOT / "gyoza" / "op.py", tmp_path / "gyoza_op.py")
    for block in blocks(page, "python"):
        if "@op" not in block:
            continue
        name = re.findall(r"@op\ndef (\w+)", block)[0]
        (tmp_path / "op.py").write_text(block, encoding="utf-8")
        taken = {key: value for key, value in inputs.items() if f"{key}: str" in block}
        command = [sys.executable, str(tmp_path / "op.py"), json.dumps(taken)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        said = "".join(line for line in ran.stdout.splitlines() if not line.startswith("::"))
        assert json.loads(said) == outputs[name]


def test_the_http_reference_names_every_route_and_no_other() -> None:
    def plain(path: str) -> str:
        return re.sub(r"\{\w+\}", "{id}", path)

    service: Any = None  # no request is made
    paths: dict[str, dict[str, Any]] = create_app(service, Keyring("key")).openapi()["paths"]
    routes = {f"{method.upper()} {plain(path)}" for path in paths for method in paths[path]}
    reference = prose(ROOT / "docs" / "reference.md")
    assert routes == set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`]*)`", reference))


@on_each_page
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", prose(page)):
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert not name or name in functions, f"{path}::{name}"


def told(name: str, value: int) -> str:
    """Return a limit as the reference writes it."""
    if not name.endswith("BYTES"):
        return f"{value:,}"
    return f"{value // MIB} MiB" if value % MIB == 0 else f"{value // KIB} KiB"


def test_the_reference_tells_every_limit_as_it_is() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|([^|]+)\|([^|]+)\|([^|]*)\|$", page, re.MULTILINE)
    documented = {
        name: limit for _, limit, names in rows for name in re.findall(r"`([A-Z_]+)`", names)
    }
    numbers = {
        name: value
        for name, value in vars(limits).items()
        if isinstance(value, int) and name not in ("KIB", "MIB")
    }
    assert set(documented) == set(numbers)
    for name, value in numbers.items():
        assert told(name, value) in documented[name], name
