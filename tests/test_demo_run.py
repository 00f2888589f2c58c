"""`kdaudit demo`, whole: what a newcomer sees first."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from conftest import Demo

pytestmark = pytest.mark.slow


def test_shows_the_picture(demo: Demo) -> None:
    """Soft well under the baseline, hard inheriting more, next to nothing memorized of unseen text."""
    results = json.loads((demo.folder / "run" / "results.json").read_text())
    models, comparison = results["models"], results["comparison"]
    assert models["soft"]["memorized"] < 0.5 * models["baseline"]["memorized"]
    assert models["teacher"]["memorized"] > models["baseline"]["memorized"]
    assert comparison["hard"]["inherited"] >= comparison["soft"]["inherited"] + 10
    assert results["soft_vs_hard"]["mcnemar_p"] < 0.001
    assert all(model["holdout"]["memorized"] <= 1 for model in models.values())


def test_planted_records_are_among_the_leaks(demo: Demo) -> None:
    leaks = pq.read_table(demo.folder / "run" / "leaks.parquet", columns=["text", "copies"]).to_pylist()
    planted = [leak for leak in leaks if "example.com" in leak["text"]]
    assert len(planted) >= 5
    assert max(leak["copies"] for leak in planted) == 16


def test_names_the_report_and_lays_out_its_folder(demo: Demo) -> None:
    assert str(demo.folder / "run" / "report.html") in demo.output
    assert {"audit.yaml", "models", "run"} <= {path.name for path in demo.folder.iterdir()}
