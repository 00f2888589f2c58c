"""The pages of a comparison in a browser: a phone, paper, both colour schemes, and axe-core."""

from __future__ import annotations

from pathlib import Path

import pytest
from compared_runs import Text, write_run
from sample_results import HOSTILE
from test_report_axe import WCAG, axe
from test_report_browser import browser, pytestmark, sync_api

from kdaudit.pipelines.compare import compare_runs, write_compared
from kdaudit.runs import layout

__all__ = ["browser", "pytestmark"]
PAGES = (layout.COMPARE_REPORT, layout.PUBLIC_COMPARE_REPORT)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New, gone, added and remaining leaks, accepted and tagged ones, hostile names."""
    folder = tmp_path_factory.mktemp("compared")
    texts = [Text(number, HOSTILE[number % len(HOSTILE)]) for number in range(30)]
    models = {"teacher": {1, 2, 5, 6}, "baseline": {2}}
    old = write_run(
        folder / "old", texts[:25], {**models, "soft": {1, 2, 3}, "hard": {4}}, weights={"soft": "s"}
    )
    entry = {"row": 1, "reason": "known", "until": "2031-01-01", "leaks": [5]}
    counts = {"day": "2026-01-01", "entries": 1, "matched": 1, "leaks": 1}
    accepted = {**counts, "in_force": [entry], "expired": [], "unmatched": [], "over_broad": []}
    new = write_run(
        folder / "new", texts, {**models, "soft": {1, 5, 6, 28}, "hard": {4}},
        tags={6: ["email"]}, accepted=accepted, name=HOSTILE[0],
    )  # fmt: skip
    write_compared(compare_runs(old, new), old, new, folder / "out")
    return folder / "out"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_fits_phone_and_paper_and_axe_finds_nothing(
    browser: sync_api.Browser, compared: Path, name: str, scheme: str
) -> None:
    address = (compared / name).as_uri()
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address, wait_until="load")
    assert asked == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1000, "height": 800})
    found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": WCAG}})
    assert found.response["violations"] == [], found.generate_report()
    page.set_viewport_size({"width": 690, "height": 970})  # A4, 14 mm margins
    page.emulate_media(media="print", color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    page.close()
