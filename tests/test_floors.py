"""The walls of the house: no package imports one above it, and none but these stand at the root."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from kdaudit.errors import UsageError

PACKAGE = ROOT / "kdaudit"
FLOORS = (
    {"errors"},
    {"runs"},
    {"schemas"},
    {"config"},
    {"models"},
    {"corpus", "inference"},
    {"attacks", "risk", "distillation"},
    {"analysis", "screening"},
    {"reporting"},
    {"modelcard", "exporting"},
    {"pipelines"},
    {"cli"},
)
"""From the ground up. Packages of one floor do not import one another."""
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}


def imports_of(path: Path) -> Iterator[str]:
    """Packages of kdaudit that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            names = (
                [node.module] if node.module != "kdaudit" else [f"kdaudit.{one.name}" for one in node.names]
            )
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("kdaudit."))


def test_the_root_holds_the_packages_and_nothing_loose() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert modules == {"__init__", "__main__", "errors"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == FLOOR.keys() - {"errors"}


@pytest.mark.parametrize("package", sorted(FLOOR))
def test_no_package_imports_upward(package: str) -> None:
    modules = [*(PACKAGE / package).rglob("*.py")] or [PACKAGE / f"{package}.py"]
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules
        for name in imports_of(path)
        if name in FLOOR and name != package and FLOOR[name] >= FLOOR[package]
    }
    assert not wrong


def test_engines_know_token_ids_alone() -> None:
    """No text, no corpus, no run directory: an engine is given ids and gives ids or numbers back."""
    for path in (PACKAGE / "inference").rglob("*.py"):
        assert not {"corpus", "runs", "analysis", "schemas"} & set(imports_of(path)), path


def test_pages_are_made_from_what_a_run_wrote_alone() -> None:
    """Reporting and cards know neither models nor corpora nor the pipelines that call them."""
    for package in ("reporting", "modelcard", "exporting"):
        for path in (PACKAGE / package).rglob("*.py"):
            assert not {"corpus", "inference", "attacks", "pipelines"} & set(imports_of(path)), path


USAGE_ERRORS = {"KdauditError", *(each.__name__ for each in (UsageError, *UsageError.__subclasses__()))}
SENTENCES = {"str", "repr", "format", "reason"}
"""What makes text of an exception."""


def caught_as(handler: ast.ExceptHandler) -> set[str]:
    """The names of the classes that a handler catches."""
    return {node.id for node in ast.walk(handler.type or ast.Pass()) if isinstance(node, ast.Name)}


def sentences_read(module: ast.AST) -> Iterator[int]:
    """Lines where a handler of a UsageError makes its sentence, or reads the arguments that it is made of."""
    for handler in ast.walk(module):
        if not isinstance(handler, ast.ExceptHandler) or not caught_as(handler) & USAGE_ERRORS:
            continue
        for node in (inner for statement in handler.body for inner in ast.walk(statement)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in SENTENCES:
                parts = node.args
            elif isinstance(node, ast.FormattedValue) or (
                isinstance(node, ast.Attribute) and node.attr == "args"
            ):
                parts = [node.value]
            else:
                continue
            yield from (part.lineno for part in parts if getattr(part, "id", "") == handler.name)


def test_only_the_command_line_makes_a_sentence_of_a_usage_error() -> None:
    read = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "cli"
        for line in sentences_read(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not read


LISTED = re.compile(r"^ *\w+\.py\b", re.MULTILINE)
"""A line of a map."""
MAPS = [path for path in sorted(PACKAGE.rglob("__init__.py")) if LISTED.search(path.read_text("utf-8"))]


@pytest.mark.parametrize("init", MAPS, ids=lambda path: path.parent.name)
def test_a_package_map_names_what_the_package_holds(init: Path) -> None:
    modules = {path.stem for path in init.parent.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in init.parent.glob("*/__init__.py")}
    text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    assert modules == {*re.findall(r"\b(\w+)\.py\b", text)}
    assert folders <= {*re.findall(r"\b(\w+)/", text)}


def test_most_packages_have_a_map() -> None:
    assert len(MAPS) > 10
