"""`kdaudit demo`, whole: what a newcomer sees first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Demo

pytestmark = pytest.mark.slow


def test_soft_memorizes_less_and_hard_inherits_more_than_chance(demo: Demo) -> None:
    """Soft well under each baseline, hard inheriting more, next to nothing memorized of unseen text."""
    results = json.loads((demo.folder / "run" / "results.json").read_text())
    models, comparison = results["models"], results["comparison"]
    baselines = [model["memorized"] for model in models.values() if model["role"] == "baseline"]
    assert len(baselines) == 3
    assert models["soft"]["memorized"] < 0.5 * min(baselines)
    assert models["teacher"]["memorized"] > max(baselines)
    assert comparison["hard"]["inherited"] >= comparison["soft"]["inherited"] + 10
    assert results["soft_vs_hard"]["mcnemar_p"] < 0.001
    assert all(model["holdout"]["memorized"] <= 1 for model in models.values())


def test_inheritance_stands_beside_what_chance_gives(demo: Demo) -> None:
    """Baselines regain a part of what the teacher memorizes and one of them does not."""
    results = json.loads((demo.folder / "run" / "results.json").read_text())
    for name in ("soft", "hard"):
        found = results["comparison"][name]
        assert found["inheritance_floor"] > 0.05
        excess = found["reference_inheritance"] - found["inheritance_floor"]
        assert found["excess_inheritance"] == pytest.approx(excess)
        low, high = found["excess_ci95"]
        assert low <= found["excess_inheritance"] <= high


def test_planted_records_are_among_the_leaks(demo: Demo) -> None:
    leaks = pq.read_table(demo.folder / "run" / "leaks.parquet", columns=["text", "copies"]).to_pylist()
    planted = [leak for leak in leaks if "example.com" in leak["text"]]
    assert len(planted) >= 5
    assert max(leak["copies"] for leak in planted) == 16


def test_canaries_that_were_planted_often_are_extracted_also_from_the_soft_student(demo: Demo) -> None:
    results = json.loads((demo.folder / "run" / "results.json").read_text())
    for name in ("teacher", "soft"):
        found = results["attacks"][name]["canaries"]
        often = found["repetitions"]["16"]
        assert found["controls_extracted"] == 0
        assert often["canaries"] == found["repetitions"]["1"]["canaries"] == 3
        assert often["extracted"] >= 2
        assert often["exposure"]["median"] == found["highest_exposure"]


def test_names_the_report_and_lays_out_its_folder(demo: Demo) -> None:
    assert str(demo.folder / "run" / "report.html") in demo.output
    assert {"audit.yaml", "models", "run"} <= {path.name for path in demo.folder.iterdir()}


def test_the_notebook_runs_on_the_demo(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kdaudit-demo").symlink_to(demo.folder)
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs" / "python.ipynb").read_text())
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "outputs would show what another version found"
            exec(cell["source"], names)
    assert names["run"].results.models["hard"].memorized == len(
        [leak for leak in names["run"].results.leaks if "hard" in leak.memorized_by]
    )
    assert "leaks of the hard student are inherited" in capsys.readouterr().out
