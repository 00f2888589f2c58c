"""The reports in a real Chromium: nothing runs, nothing loads, nothing is said, nothing runs off the side."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_results import HOSTILE_TITLE, write_three_runs

from kdaudit.config.audit import ReportConfig
from kdaudit.pipelines.report import render_reports

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (kdaudit[dev])")

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)"
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
RUNS = ("sample", "hostile", "bare")
PAGES = ("report.html", "report.public.html", "annex.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_three_runs(folder)
    for name in RUNS:
        title = HOSTILE_TITLE if name == "hostile" else None
        render_reports(folder / name, ReportConfig(title=title, document_ids=name == "hostile"), annex=True)
    return folder


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("page_name", PAGES)
def test_page_is_silent_and_self_contained(
    browser: sync_api.Browser, runs: Path, name: str, page_name: str
) -> None:
    address = (runs / name / page_name).as_uri()
    page = browser.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address, wait_until="load")
    page.wait_for_timeout(200)
    assert said == []
    assert asked == [address]
    assert page.evaluate("document.scripts.length") == 0
    assert page.title() != "owned"
    # The style sheet took effect: its hash in the policy is right in the browser's eyes too.
    assert page.evaluate("getComputedStyle(document.querySelector('.verdict')).borderLeftWidth") == "10px"
    page.close()


def test_policy_stops_what_a_mistake_would_let_in(browser: sync_api.Browser, runs: Path) -> None:
    html = (runs / "sample" / "report.html").read_text(encoding="utf-8")
    attack = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    spoilt = runs / "spoilt.html"
    spoilt.write_text(html.replace("</main>", f"{attack}</main>"), encoding="utf-8")
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(spoilt.as_uri(), wait_until="load")
    assert page.title() != "owned"
    assert any("Content Security Policy" in text for text in refused)
    page.close()


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("page_name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(
    browser: sync_api.Browser, runs: Path, name: str, page_name: str, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.goto((runs / name / page_name).as_uri(), wait_until="load")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("window.scrollTo({left: 200, behavior: 'instant'})")
    assert page.evaluate("window.scrollX") == 0
    page.close()


@pytest.mark.parametrize("page_name", PAGES)
@pytest.mark.parametrize("width", [390, 800, 1100])
def test_sentences_of_reviewers_are_read_without_scrolling_sideways(
    browser: sync_api.Browser, runs: Path, page_name: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto((runs / "sample" / page_name).as_uri(), wait_until="load")
    box = "document.querySelector('section[aria-labelledby=reviewers] .scroll')"
    assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    labels = page.evaluate(
        f"[...{box}.querySelector('tbody tr').cells].map(cell => getComputedStyle(cell, '::before').content)"
    )
    columns = page.evaluate(
        f"[...{box}.querySelectorAll('thead th')].map(head => JSON.stringify(head.innerText))"
    )
    # Where rows are blocks, each cell says the name of its column.
    assert labels == (columns if width < 960 else ["none"] * len(columns))
    page.close()


@pytest.mark.parametrize("page_name", PAGES)
def test_page_fits_paper(browser: sync_api.Browser, runs: Path, page_name: str) -> None:
    page = browser.new_page(viewport={"width": 690, "height": 970}, color_scheme="dark")  # A4, 14 mm margins
    page.emulate_media(media="print", color_scheme="dark")
    page.goto((runs / "sample" / page_name).as_uri(), wait_until="load")
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.close()


def test_leaks_cannot_draw_outside_their_card(browser: sync_api.Browser, runs: Path) -> None:
    page = browser.new_page()
    page.goto((runs / "hostile" / "report.html").as_uri(), wait_until="load")
    overflows = page.evaluate(
        "[...document.querySelectorAll('.quote')].map(box => getComputedStyle(box).overflow)"
    )
    assert set(overflows) == {"hidden"}
    page.close()
