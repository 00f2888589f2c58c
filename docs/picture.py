"""Draw docs/report.png: the top of a run's public report, as Chromium shows it.

python docs/picture.py RUN_DIR      (after `kdaudit demo`: kdaudit-demo/run)
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main(run_dir: str) -> None:
    """Take the screenshot at 1.5 times the page's resolution."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 1250}, device_scale_factor=1.5)
        page.goto((Path(run_dir) / "report.public.html").resolve().as_uri())
        page.screenshot(path=Path(__file__).with_name("report.png"))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
