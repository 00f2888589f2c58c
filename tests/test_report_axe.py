"""axe-core, as axe-playwright-python brings it, looks on the reports for what keeps people out."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_results import write_three_runs
from test_report_browser import PAGES, browser, pytestmark, sync_api

from kdaudit.config.audit import ReportConfig
from kdaudit.pipelines.report import render_reports

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="kdaudit[dev] is not installed")

__all__ = ["browser", "pytestmark"]
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
LEAKS = 6
"""Each is built like the next, and contrast is measured word by word."""


@pytest.fixture(scope="module")
def short_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    write_three_runs(folder)
    for name in ("hostile", "sample", "bare"):
        render_reports(folder / name, ReportConfig(max_examples=LEAKS), annex=True)
    return folder


@pytest.mark.parametrize(
    ("name", "page_name", "scheme"),
    [
        *[("sample", page_name, scheme) for page_name in PAGES for scheme in ("light", "dark")],
        ("hostile", "annex.html", "dark"),
        ("hostile", "report.html", "light"),
        ("hostile", "report.public.html", "dark"),
        ("bare", "report.html", "dark"),
        ("bare", "report.public.html", "light"),
    ],
)
def test_axe_finds_no_violation_of_wcag_aa(
    browser: sync_api.Browser, short_runs: Path, name: str, page_name: str, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 800}, color_scheme=scheme)
    page.goto((short_runs / name / page_name).as_uri(), wait_until="load")
    found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": WCAG}})
    assert found.response["testEngine"]["name"] == "axe-core"
    assert len(found.response["passes"]) > 20
    assert found.response["violations"] == [], found.generate_report()
    page.close()


def test_axe_would_see_a_violation(browser: sync_api.Browser, short_runs: Path) -> None:
    html = (short_runs / "bare" / "report.html").read_text(encoding="utf-8")
    spoilt = short_runs / "spoilt.html"
    spoilt.write_text(html.replace('<html lang="en">', "<html>"), encoding="utf-8")
    page = browser.new_page()
    page.goto(spoilt.as_uri(), wait_until="load")
    found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": WCAG}})
    assert [one["id"] for one in found.response["violations"]] == ["html-has-lang"]
    page.close()
