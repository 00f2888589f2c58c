"""Whatever others may be given holds no text of a leak, no document id and no path: all such files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from report_page import bare, shingles
from sample_results import LOCAL_PATH, leak_row, sample_dict, write_run

from kdaudit.cli import main
from kdaudit.config.audit import ReportConfig
from kdaudit.exporting.trackers import log_to
from kdaudit.pipelines.report import render_reports
from kdaudit.reporting.public import without_private_parts
from kdaudit.reporting.render import read_results
from kdaudit.runs.layout import is_private

PUBLIC = {
    *("report.public.html", "card.md", "annex.html"),
    *("kdaudit.sarif", "kdaudit.junit.xml", "kdaudit.csv"),
    *("compare.public.html", "trainings.html", "trainings.json"),
}
NOT_OURS = {".partial", ".key"}


def kdaudit(*words: str | Path) -> None:
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code in (0, 1), done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two audits of one corpus, the later with fewer leaks, and all that is made of them."""
    folder = tmp_path_factory.mktemp("public")
    data = sample_dict()
    later = json.loads(json.dumps(data | {"leaks": data["leaks"][::2]}))
    for name in ("soft", "hard"):
        later["models"][name]["fingerprint"] = f"later {name}"
    for name, one in (("old", data), ("new", later)):
        write_run(folder / name, one)
        (folder / name / "hmac.key").write_text("ab" * 32)
        render_reports(folder / name, ReportConfig(title=f"Audit of {LOCAL_PATH}"), annex=True)
    for form, name in (("sarif", "kdaudit.sarif"), ("junit", "kdaudit.junit.xml"), ("csv", "kdaudit.csv")):
        kdaudit("export", folder / "old", "--format", form, "--out", folder / name)
    kdaudit("compare", folder / "old", folder / "new", "--out", folder / "compared")
    kdaudit("report", folder / "old", folder / "new", "--out", folder / "trainings")
    return folder


@pytest.fixture(scope="module")
def leaked() -> set[str]:
    found: set[str] = set()
    data = sample_dict()
    for leak in data["leaks"]:
        row = leak_row(leak, [*data["models"]])
        found |= shingles(row["text"])
        for said in row["models"]:
            found |= shingles(said["continuation"])
    return found


def told(path: Path) -> str:
    """All of a file, comments, attributes and escaped characters too."""
    text = path.read_bytes().decode(errors="replace")
    if path.suffix in (".json", ".sarif"):
        text = json.dumps(json.loads(text), ensure_ascii=False)
    return bare(text)


def private_in(text: str, leaked: set[str]) -> list[str]:
    found = sorted(shingles(text) & leaked)[:3]
    return found + [part for part in ("crawl-", "/home/", "private stuff", "owner/") if part in text]


def test_the_list_is_whole(folder: Path) -> None:
    """Every file that is made of a run and is not for its owner alone is on it."""
    made = {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".parquet"}
    made -= {path.name for path in folder.rglob("*") if path.suffix in NOT_OURS}
    assert {name for name in made if not is_private(name)} == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_file_holds_nothing_private(name: str, folder: Path, leaked: set[str]) -> None:
    paths = [*folder.rglob(name)]
    assert paths
    for path in paths:
        assert private_in(told(path), leaked) == [], path


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_a_private_file_would_be_found_out(name: str, folder: Path, leaked: set[str]) -> None:
    [path, *_] = folder.rglob(name)
    assert private_in(told(path), leaked)


def test_words_in_comments_and_attributes_would_be_found_out(leaked: set[str]) -> None:
    text = leak_row(sample_dict()["leaks"][0], [])["text"]
    for hidden in (f"<!-- {text} -->", f'<p title="{text}">', f"<a href='{text.replace(' ', '&#32;')}'>"):
        assert private_in(bare(hidden), leaked)


@pytest.mark.parametrize("tracker", ["mlflow", "wandb", "trackio"])
def test_a_tracker_is_given_nothing_private(
    tracker: str, folder: Path, leaked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what kdaudit hands over; tests of trackers look at the files that they write."""
    given: list[Any] = []
    module: Any = ModuleType("tracker")
    module.log = lambda tracked, page: given.extend((tracked, page))
    monkeypatch.setitem(sys.modules, f"kdaudit.exporting.trackers.{tracker}", module)
    log_to(
        tracker, without_private_parts(read_results(folder / "old")), folder / "old" / "report.public.html"
    )
    tracked, page = given
    assert private_in(repr(tracked), leaked) == []
    assert page.name in PUBLIC
