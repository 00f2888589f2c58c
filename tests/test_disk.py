"""A full disk, and a folder without write permission: every command says so and loses nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT
from test_wrong_input import as_plain_user

sys.path.append(str(ROOT / "tests" / "benchmarks"))

import kills

from kdaudit.cli import main


class Case(NamedTuple):
    """A command, what it finds undisturbed, and sizes of a disk that do not hold its output."""

    command: kills.Command
    reference: Any
    too_small: tuple[str, ...]


_TOO_SMALL = {
    "run": ("64k", "128k"),
    "screen": ("48k", "96k"),
    "distill": ("64k", "300k"),
    "report": (),
    "card": (),
}
"""For those that work on a finished run the disk is filled beside it."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("commands")
    found = {}
    for command in kills.commands(folder):
        out = folder / f"{command.name}-undisturbed"
        if command.start is not None:
            shutil.copytree(command.start, out, dirs_exist_ok=True)
        done = call(command, out)
        assert done.exit_code == 0, done.output
        found[command.name] = Case(command, command.results(out), _TOO_SMALL[command.name])
    return found


def call(command: kills.Command, out: Path) -> Result:
    return CliRunner().invoke(main, command.words(out))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 4096)


@pytest.mark.parametrize("name", ["run", "screen", "distill"])
def test_a_full_disk_is_said_and_the_command_resumes_once_there_is_space(
    name: str, cases: dict[str, Case], disk: Path
) -> None:
    case = cases[name]
    for size in case.too_small:
        resize(disk, size)
        stopped = call(case.command, disk / "out")
        assert stopped.exit_code == 4, (size, stopped.output)
        assert "free space" in stopped.stderr
        assert "No space left" in stopped.stderr or name == "distill"  # torch's writer does not say so
        assert "Traceback" not in stopped.stderr
    resize(disk, "64m")
    done = call(case.command, disk / "out")
    assert done.exit_code == 0, done.output
    assert case.command.results(disk / "out") == case.reference


@pytest.mark.parametrize("name", ["report", "card"])
def test_a_full_disk_leaves_a_finished_run_as_it_was(name: str, cases: dict[str, Case], disk: Path) -> None:
    case = cases[name]
    resize(disk, "64m")
    shutil.copytree(case.command.start, disk / "out")
    before = kills.pages(disk / "out")
    fill(disk)
    stopped = call(case.command, disk / "out")
    assert stopped.exit_code == 4, stopped.output
    assert "No space left" in stopped.stderr
    assert kills.pages(disk / "out") == before
    (disk / "filler").unlink()
    done = call(case.command, disk / "out")
    assert done.exit_code == 0, done.output
    assert case.command.results(disk / "out") == case.reference


@pytest.mark.parametrize("name", ["run", "screen", "distill", "report", "card"])
def test_a_folder_without_write_permission_is_said(name: str, cases: dict[str, Case], tmp_path: Path) -> None:
    case, out = cases[name], tmp_path / "out"
    if case.command.start is None:
        out.mkdir()
    else:
        shutil.copytree(case.command.start, out)
    folders = [out, *(path for path in out.rglob("*") if path.is_dir())]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for folder in folders:
        folder.chmod(0o500)
    try:
        with as_plain_user():
            refused = call(case.command, out)
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert refused.exit_code in (2, 4), refused.output
    assert "ermission" in refused.stderr
    assert str(out) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    done = call(case.command, out)
    assert done.exit_code == 0, done.output
    assert case.command.results(out) == case.reference
    assert os.access(out, os.W_OK)
