"""The command line itself: speed of --help, and docs that cannot drift from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT

from kdaudit.cli import main

HEAVY = (
    "torch",
    "transformers",
    "vllm",
    "datasets",
    "sklearn",
    "scipy",
    "numpy",
    "pyarrow",
    "pydantic",
    "rich",
)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from kdaudit.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print(sorted(set(sys.modules) & set({HEAVY})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_readme_lists_every_command_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("## Commands")[2].partition("\n## ")[0]
    assert set(re.findall(r"\| `kdaudit (\w+)", table)) == set(main.commands)


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize(
    "words", [["run"], ["run", "none.yaml"], ["verify", "none"], ["report", "none"], ["nope"]]
)
def test_wrong_use_exits_2_in_one_sentence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
