"""README and docs cannot drift: links resolve, commands and options exist, configurations are valid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT
from ruamel.yaml import YAML
from sample_results import write_run

from kdaudit.cli import json_lines, main
from kdaudit.cli.command import EXIT_BY_VERDICT
from kdaudit.cli.ending import INTERRUPTED
from kdaudit.config.yaml.loading import load_audit, load_distill, load_screen
from kdaudit.errors import KdauditError, UsageError

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LOADERS = {"audit.yaml": load_audit, "screen.yaml": load_screen, "distill.yaml": load_distill}


def blocks(page: Path, *kinds: str) -> list[str]:
    found = re.findall(
        r"^ *```(\w*)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [text for kind, text in found if kind in kinds]


def prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), target
        assert place.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(place), target


def options(name: str) -> set[str]:
    own = {word for one in main.commands[name].params for word in (*one.opts, *one.secondary_opts)}
    return {*own, "--help"}


def commands(page: Path) -> Iterator[str]:
    """Each call of kdaudit in code blocks and jobs, comments and continuations resolved."""
    for text in blocks(page, "sh", "bash", "yaml"):
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            if found := re.match(r"\s*(?:- )?(?:run: )?(?:torchrun .*-m )?(kdaudit [^#]*)", line):
                yield found[1].strip()


CALLS = [(page.name, call) for page in PAGES for call in commands(page)]


def test_docs_show_most_commands() -> None:
    shown = {call.split()[1] for _, call in CALLS}
    assert shown >= {"run", "screen", "distill", "export", "validate"}


@pytest.mark.parametrize(("page", "call"), CALLS, ids=lambda text: text[:50])
def test_commands_and_options_exist(page: str, call: str) -> None:
    """Each is parsed as the command line parses it; wrong ones raise."""
    _, name, *words = shlex.split(call)
    assert name in main.commands, page
    if words != ["--help"]:
        main.commands[name].make_context(name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_prose_names_exist(page: Path) -> None:
    """Synopses leave arguments out, so that only names are looked at."""
    for name, rest in re.findall(r"`kdaudit ([a-z]+)([^`]*)`", prose(page)):
        assert name in main.commands, name
        assert {*re.findall(r"--[a-z][a-z-]*", rest)} <= options(name), rest


def configurations() -> Iterator[tuple[str, str, str]]:
    for page in PAGES:
        for text in blocks(page, "yaml"):
            if found := re.match(r"# (audit\.yaml|screen\.yaml|distill\.yaml)\n", text):
                yield page.name, found[1], text


CONFIGURATIONS = [*configurations()]


def test_docs_show_configurations() -> None:
    assert {name for _, name, _ in CONFIGURATIONS} >= {"audit.yaml", "screen.yaml"}


@pytest.mark.parametrize(("page", "name", "text"), CONFIGURATIONS, ids=lambda text: text[:20])
def test_configurations_are_valid(page: str, name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    LOADERS[name](tmp_path / name)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_yaml_is_yaml(page: Path) -> None:
    for text in blocks(page, "yaml"):
        assert YAML(typ="safe").load(text)


def codes(text: str) -> set[int]:
    return {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


def test_ci_names_the_exit_codes_that_there_are() -> None:
    there = {*EXIT_BY_VERDICT.values(), UsageError.exit_code, KdauditError.exit_code, INTERRUPTED}
    assert codes((ROOT / "docs" / "ci.md").read_text()) == there


def test_ci_names_the_events_that_there_are() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert told == re.findall(r"^    (\w+)  +", json_lines.__doc__ or "", re.MULTILINE)
    long = {name for name in main.commands if json_lines.OPTION in options(name)}
    named = re.search(r"`--log-json` \(([^)]*)\)", page)
    assert named
    assert set(named[1].split(", ")) == long


EXPORTS = [call for page, call in CALLS if call.startswith("kdaudit export")]


def test_exports_of_the_docs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the jobs too."""
    write_run(tmp_path / "audit")
    (tmp_path / "audit" / "hmac.key").write_text("ab" * 32)
    monkeypatch.chdir(tmp_path)
    assert len(EXPORTS) >= 6
    for call in EXPORTS:
        done = CliRunner().invoke(main, shlex.split(call)[1:])
        assert done.exit_code == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"kdaudit.sarif", "kdaudit.junit.xml", "kdaudit.csv"}


def test_jobs_upload_nothing_private() -> None:
    from kdaudit.runs.layout import is_private

    for text in blocks(ROOT / "docs" / "ci.md", "yaml"):
        for name in re.findall(r"\baudit/([\w.]+)", text):
            assert name == "results.json" or not is_private(name)
        assert "path: audit\n" not in text


DOCS = [page for page in PAGES if page.parent.name == "docs"]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_says_first_what_the_reader_gets(page: Path) -> None:
    title, first, *_ = page.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ")
    assert first.startswith("You get ")


def test_the_index_lists_every_page_once() -> None:
    listed = re.findall(r"\]\(([\w.]+)\)", (ROOT / "docs" / "README.md").read_text())
    there = {page.name for page in DOCS} - {"README.md"}
    assert sorted(listed) == sorted({*there, "python.ipynb"})
