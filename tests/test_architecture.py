"""Nothing imports upward, and a package's map names every module of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "kdaudit"
FLOORS = (
    {"errors"},
    {"runs"},
    {"schemas"},
    {"config"},
    {"models"},
    {"corpus", "inference"},
    {"attacks", "distillation", "risk"},
    {"analysis", "screening"},
    {"reporting"},
    {"exporting", "modelcard"},
    {"pipelines"},
    {"cli"},
)
"""From the ground up; what stands on one floor does not import its neighbors."""
LEVELS = {name: level for level, names in enumerate(FLOORS) for name in names}
LISTED = re.compile(r"^ *\w+\.py\b", re.MULTILINE)
MAPPED = [path for path in sorted(PACKAGE.rglob("__init__.py")) if LISTED.search(path.read_text())]


def imported(path: Path) -> Iterator[str]:
    """Packages of kdaudit that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name.split(".")[1] for name in names if name.startswith("kdaudit."))


def test_nothing_imports_upward() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == LEVELS.keys() - {"errors"}
    upward = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for room in LEVELS
        for path in [*PACKAGE.glob(f"{room}.py"), *(PACKAGE / room).rglob("*.py")]
        for other in imported(path)
        if other != room and LEVELS[other] >= LEVELS[room]
    ]
    assert upward == []


@pytest.mark.parametrize("path", MAPPED, ids=lambda path: path.parent.name)
def test_a_map_names_every_module(path: Path) -> None:
    there = {one.stem for one in path.parent.glob("*.py")}
    there |= {one.parent.name for one in path.parent.glob("*/__init__.py")}
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    named = set(re.findall(r"\b(\w+)(?:\.py\b|/)", text))
    assert there - {"__init__", "__main__"} <= named
    assert {*re.findall(r"\b(\w+)\.py\b", text)} <= there


def test_there_are_maps() -> None:
    assert len(MAPPED) > 10
