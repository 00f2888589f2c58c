"""What each recall would flag, in screen.json, on the page and in the terminal, against counts one by one."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_predictor import ORIGIN, draw
from test_screen_report import Screened, plain, record_dict

from kdaudit.cli.summary import summarize_screen
from kdaudit.pipelines.stages.predicting import Prediction
from kdaudit.pipelines.stages.tradeoff import levels_of, tradeoff_of
from kdaudit.reporting.tradeoff import tradeoff
from kdaudit.risk import PredictorSettings, fit_predictor
from kdaudit.risk.guarantee import RECALLS
from kdaudit.schemas.predictor import PredictorResult, RecallThreshold
from kdaudit.schemas.results import Curves
from kdaudit.schemas.screening import KeptCounts, ScreenRecord
from kdaudit.screening.window_hashes import KeySet


def prediction(thresholds: list[tuple[float, float | None]], chosen: float | None = None) -> Prediction:
    promise = chosen and {"recall": chosen, "confidence": 0.95, "calibration_positives": 40}
    return Prediction(
        result=PredictorResult.model_validate({"status": "ok", "promise": promise}),
        curves=Curves(),
        thresholds=tuple(
            RecallThreshold(recall=recall, confidence=0.95, threshold=threshold)
            for recall, threshold in thresholds
        ),
        notes=[],
    )


def kept(by_recall: tuple[int, ...]) -> KeptCounts:
    return KeptCounts.model_validate({**record_dict()["kept"], "documents_by_recall": by_recall})


def test_points_count_what_is_observed_or_reaches_the_threshold() -> None:
    rng = np.random.default_rng(0)
    risk, observed, copies = rng.random(500), rng.random(500) < 0.05, rng.integers(1, 9, 500).astype(np.int32)
    found = prediction([(0.5, 0.9), (0.8, 0.7), (0.9, 0.7), (0.97, 0.2), (0.99, None)], chosen=0.97)
    points = tradeoff_of(found, levels_of(found, risk, observed), copies, kept((7, 8, 8, 90)))
    assert points is not None
    for point, documents in zip(points[:4], (7, 8, 8, 90), strict=True):
        flags = [bool(o) or r >= point.threshold for r, o in zip(risk, observed, strict=True)]
        assert point.flagged_examples == sum(flags)
        assert point.flagged_windows == sum(int(c) for c, flag in zip(copies, flags, strict=True) if flag)
        assert point.flagged_documents == documents
    assert [point.chosen for point in points] == [False, False, False, True, False]
    last = points[4]
    assert (last.threshold, last.flagged_examples, last.flagged_windows, last.flagged_documents) == (
        None,
    ) * 4
    assert last.reason == "299 memorized texts are needed"


def test_without_a_predictor_from_here_there_is_no_curve() -> None:
    nothing = prediction([])
    assert levels_of(nothing, np.zeros(3), np.zeros(3, dtype=bool)) is None
    assert tradeoff_of(nothing, None, np.ones(3, dtype=np.int32), kept(())) is None


def test_documents_that_an_earlier_version_did_not_count_are_null() -> None:
    found, copies = prediction([(0.5, 0.9)]), np.ones(3, dtype=np.int32)
    levels = levels_of(found, np.array([0.1, 0.95, 0.2]), np.zeros(3, dtype=bool))
    (point,) = tradeoff_of(found, levels, copies, kept(())) or []
    assert (point.flagged_examples, point.flagged_documents) == (1, None)


def test_thresholds_fall_as_recall_rises_and_the_predictors_own_is_among_them() -> None:
    fitted = fit_predictor(draw(120, 2_000), PredictorSettings(1, 0.99, 0.95, 0), ORIGIN)
    known = {one.recall: one.threshold for one in fitted.thresholds}
    reached = 0.05 ** (1 / 120)
    assert sorted(known) == pytest.approx(sorted({*RECALLS, reached}))
    assert known[0.99] is None
    assert known[fitted.predictor.promise.recall] == fitted.predictor.threshold
    thresholds = [one.threshold for one in fitted.thresholds if one.threshold is not None]
    assert len(thresholds) == 6
    assert all(before >= after for before, after in pairwise(thresholds))
    risk, positive = fitted.predictor.risk(draw(120, 2_000).features), draw(120, 2_000).positive
    for one in fitted.thresholds:
        if one.threshold is not None:
            assert np.mean(risk[positive] >= one.threshold) > one.recall - 0.02


def test_a_window_has_the_level_of_its_example() -> None:
    windows = [np.array([k, k + 1, 7], dtype=np.int32) for k in range(40)]
    levels = np.array([k % 5 for k in range(30)], dtype=np.int8)
    keys = KeySet(windows[:30], levels)
    again = [np.array([k, k + 1, 7], dtype=np.int32) for k in reversed(range(40))]
    assert keys.levels(again).tolist() == [k % 5 if k < 30 else -1 for k in reversed(range(40))]
    assert keys.holds(again).tolist() == [k < 30 for k in reversed(range(40))]


POINTS = [
    (0.5, 0.3, 200, 300, 150, False),
    (0.9, 0.05, 600, 900, 500, False),
    (0.968, 0.0123, 1234, 2050, 1100, True),
    (0.99, None, None, None, None, False),
]


def record_with_curve(**changes: object) -> dict[str, object]:
    names = ("recall", "threshold", "flagged_examples", "flagged_windows", "flagged_documents", "chosen")
    points = [{**dict(zip(names, one, strict=True)), "confidence": 0.95} for one in POINTS]
    points[-1]["reason"] = "299 memorized texts are needed"
    return record_dict(tradeoff=points, **changes)


def test_the_charts_mark_what_was_chosen_and_stand_on_nines() -> None:
    windows, documents = tradeoff(ScreenRecord.model_validate(record_with_curve())).panels
    places = [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", documents.dots)]
    left, right = math.log10(2), 2.0

    def at(recall: float) -> float:
        return 60 + 266 * (-math.log10(1 - recall) - left) / (right - left)

    top = 0.03  # the round step above 1,100 of 41,000
    expected = [(at(r), 240 - 210 * d / 41_000 / top) for r, _, _, _, d, _ in POINTS if d is not None]
    for found, wanted in zip(places, expected, strict=True):
        assert found == pytest.approx(wanted, abs=0.1)
    assert documents.rule == pytest.approx(at(0.968), abs=0.1)
    assert windows.title == "Windows flagged"
    words = windows.description
    assert "To guarantee 50%, 0.30% of the windows are flagged; to guarantee 96.8%, 2.0%." in words
    assert "Dashed: the recall chosen, 96.8%." in windows.description


def test_the_page_has_the_table_and_says_what_is_observed_and_what_predicted(tmp_path: Path) -> None:
    for page in Screened(tmp_path, record_with_curve()).pages:
        text = plain(page)
        assert "96.8% (chosen)0.01231,234 (1.2%)2,050 (2.0%)1,100 (2.7%)" in text
        assert "99%Not available: 299 memorized texts are needed." in text
        assert "Observed: of this kind as measured on the models, which needs no predictor" in text
        assert "157 of 100,000 examples: all that teacher and baseline memorize" in text
        assert "1,077 of 100,000 examples" in text


def test_in_a_sample_the_chart_is_about_examples() -> None:
    corpus = {**record_dict()["corpus"], "sampled": True}
    record = ScreenRecord.model_validate(record_with_curve(corpus=corpus))
    panels, rows = tradeoff(record)
    assert panels[0].title == "Sampled examples flagged"
    assert rows[2].windows == "2,050"


def test_the_terminal_says_them_apart(tmp_path: Path) -> None:
    text = summarize_screen(ScreenRecord.model_validate(record_with_curve()), tmp_path)
    assert "observed: 157 that teacher and baseline memorize\n" in text
    assert "predicted: 1,077 more, by their risk alone\n" in text
    assert "examples flagged by recall guaranteed: 50%: 0.2%, 90%: 0.6%, 96.8%: 1.2% (chosen)" in text


def test_pages_of_screenings_without_a_curve_say_so(tmp_path: Path) -> None:
    for page in Screened(tmp_path).pages:
        assert "No predictor was fitted here, so there are no other thresholds." in plain(page)
