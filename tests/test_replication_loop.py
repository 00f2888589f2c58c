"""The replication's closed loop: its tables, and the control that it draws; nothing is trained here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

FOLDER = Path(__file__).parent.parent / "sample_configs" / "replication"
sys.path.insert(0, str(FOLDER))

from screening import Loop, flagged_table, loop_table, main, predictor_table  # noqa: E402

from kdaudit.schemas.corpus import CorpusResult  # noqa: E402
from kdaudit.schemas.predictor import PredictorResult, RecallGuarantee, Trials  # noqa: E402
from kdaudit.schemas.screening import FlaggedCounts, ScreenRecord, TradeoffPoint  # noqa: E402


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_loop_is_told_in_counts_and_beside_the_control() -> None:
    rows = _cells(loop_table({0: Loop(200, 40, 2, 35), 1: Loop(150, 0, 0, 1)}))
    assert rows[2] == ["0", "200", "40", "2", "95.0%", "35"]
    assert rows[3] == ["1", "150", "0", "0", "-", "1"]
    assert rows[4] == ["paper", "", "1,698", "4", "99.8%", ""]


def test_a_predictor_that_could_not_be_fitted_has_no_figures() -> None:
    figure = Trials(mean=0.99, low=0.9, high=1.0)
    fitted = PredictorResult(
        status="ok",
        positives=70,
        auc=figure,
        recall=figure,
        precision=None,
        coefficients={"zlib_entropy": -1.5, "kl_divergence": 0.25},
        promise=RecallGuarantee(recall=0.9, confidence=0.95, calibration_positives=35),
    )
    few = PredictorResult(status="underpowered", positives=4)
    rows = _cells(predictor_table({3: {"easy_core": fitted, "teacher": fitted, "student": few}}))
    assert rows[0][-3:] == ["zlib_entropy", "kl_divergence", "recall guarantee"]
    told = ["0.9900 (0.9000 to 1.0000)"] * 2
    assert rows[2] == ["easy_core", "3", "70", *told, "-", "-1.50", "+0.25", "90.0%"]
    assert rows[4] == ["student", "3", "4", *["-"] * 6]


def test_what_is_flagged_stands_beside_the_recall_that_it_guarantees() -> None:
    rows = _cells(flagged_table({5: {"all": _screened(), "paper": _screened(points=False)}}))
    assert rows[0][:5] == ["seed", "features", "observed", "positives", "AUC-ROC"]
    assert rows[2] == ["5", "all", "7", "9", "-", "12.5%", "30.0%", "25.0%", "60.0%", "-", "-", "-", "20.0%"]
    assert rows[3] == ["5", "paper", "7", "9", *["-"] * 8, "20.0%"]


def _screened(points: bool = True) -> ScreenRecord:
    """A screening of 200 windows in 10 documents, 40 of them flagged."""
    found = [(0.9, 25, 3), (0.95, 50, 6), (0.99, None, None)] if points else []
    return ScreenRecord.model_construct(
        corpus=CorpusResult.model_construct(examples=200, documents=10),
        flagged=FlaggedCounts.model_construct(examples=40, memorized=7),
        predictor=PredictorResult(status="ok", positives=9),
        tradeoff=[
            TradeoffPoint.model_construct(
                recall=recall, flagged_examples=windows, flagged_documents=documents
            )
            for recall, windows, documents in found
        ],
    )


def test_without_a_replication_it_says_what_to_run_first(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code == 2
    assert "run replicate.py first" in done.stderr


@pytest.mark.parametrize("name", ["replicate.py", "screening.py"])
def test_the_scripts_say_what_they_take(name: str) -> None:
    assert (FOLDER / name).read_text().startswith('"""')
