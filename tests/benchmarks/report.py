"""How long a large audit's reports take to render, and how big they are.

    python tests/benchmarks/report.py [--leaks 5000] [--max-examples 200]

The audit is synthetic: a million examples, four models, a predictor, and as many leaks, each with a prefix, a
suffix and continuations of 5,000 characters. Exit code 1 above 5 seconds (both reports and the card, median
of five) or 1 MB (each page), or if a page does not name its cut.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from sample_results import leak_row, sample_dict, sample_leaks, write_run

from kdaudit.config.audit import ReportConfig
from kdaudit.pipelines.report import render_reports
from kdaudit.runs.layout import PUBLIC_REPORT, REPORT

_SECONDS, _BYTES, _TURNS = 5.0, 1_000_000, 5
_GROUPS = ({"hard": "inherited"}, {"soft": "easy_core", "hard": "easy_core"}, {"hard": "easy_core"})
_CUT = re.compile(r"Shown: the first [\d,]+\.</strong> The other [\d,]+ are in the audit.s leaks\.parquet")


def main() -> int:
    """Build the audit, render it, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaks", type=int, default=5000)
    parser.add_argument("--max-examples", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = _write(folder, asked.leaks)
        print(f"{data['corpus']['examples']:,} examples, {asked.leaks:,} leaks")
        seconds = [_render(folder, ReportConfig(max_examples=asked.max_examples)) for _ in range(_TURNS)]
        print(f"rendered in {median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
        fits = [_look(folder / page) for page in (REPORT, PUBLIC_REPORT)]
    return 0 if all(fits) and median(seconds) < _SECONDS else 1


def _write(folder: Path, leaks: int) -> dict[str, Any]:
    parts = [(group, leaks // len(_GROUPS)) for group in _GROUPS[1:]]
    parts.append((_GROUPS[0], leaks - sum(number for _, number in parts)))
    data = sample_dict(leaks=sample_leaks(parts))
    text = {"prefix": "p&<> " * 1000, "suffix": "s\u202e " * 1667, "text": ""}
    said = [
        {"name": model, "matched_tokens": 9, "continuation": "s\u202e " * 300 + "é&' " * 1000}
        for model in data["models"]
    ]
    write_run(folder, data, [leak_row(leak, [], **text, models=said) for leak in data["leaks"]])
    return data


def _render(folder: Path, config: ReportConfig) -> float:
    began = time.monotonic()
    render_reports(folder, config)
    return time.monotonic() - began


def _look(path: Path) -> bool:
    size, cut = path.stat().st_size, _CUT.search(path.read_text(encoding="utf-8"))
    words = re.sub(r"<[^>]*>", "", cut.group()) if cut else "the cut is not named"
    print(f"{path.name}: {size:,} bytes; {words}")
    return size < _BYTES and cut is not None


if __name__ == "__main__":
    sys.exit(main())
