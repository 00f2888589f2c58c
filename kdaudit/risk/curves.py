"""The data of the report's charts of the predictor.

The curves are of the saved model on the examples held out from its fit, weighted to the shares of positives
and others in the whole corpus. Each has at most `MOST_POINTS` points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.risk.terms import Floats
from kdaudit.schemas.results import Point

MOST_POINTS = 200
_BINS = 10
_BIN_LEAST = 10
"""Examples that a bin of the calibration curve needs at least."""
_HISTOGRAM_BINS = 20


class PredictorCurves(NamedTuple):
    """The charts' points, x rising."""

    roc: list[Point]
    """Share of the others flagged, share of the positives flagged."""
    precision_recall: list[Point]
    """Recall, precision."""
    calibration: list[Point] | None
    """Mean risk, share of positives, in bins of risk of equal width; None with fewer than two of them."""


def draw_curves(risk: Floats, positive: NDArray[np.bool_], weight: Floats) -> PredictorCurves:
    """The curves of held-out examples: three arrays (n,), with both classes in them.

    Args:
        risk: 0 to 1.
        positive: whether memorized.
        weight: examples of the corpus that each stands for, up to a factor.

    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    flagged_others, flagged, _ = roc_curve(positive, risk, sample_weight=weight)
    precision, recall, _ = precision_recall_curve(
        positive, risk, sample_weight=weight, drop_intermediate=True
    )
    return PredictorCurves(
        _points(flagged_others, flagged),
        _points(recall[::-1], precision[::-1]),
        _calibration(risk, positive, weight),
    )


def risk_histogram(risk: Floats, groups: Mapping[str, NDArray[np.bool_]]) -> dict[str, list[float]]:
    """Counts of each group's examples by risk: "edges", 21 from 0 to 1, and 20 counts a group.

    Args:
        risk: of each example, 0 to 1: (n,).
        groups: which examples each holds, (n,), by its name.

    """
    edges = np.linspace(0, 1, _HISTOGRAM_BINS + 1)
    counts = {
        name: np.histogram(risk[rows], edges)[0].astype(float).tolist() for name, rows in groups.items()
    }
    return {"edges": edges.tolist(), **counts}


def _calibration(risk: Floats, positive: NDArray[np.bool_], weight: Floats) -> list[Point] | None:
    bins = np.minimum((risk * _BINS).astype(np.int64), _BINS - 1)
    points = []
    for number in range(_BINS):
        rows = bins == number
        if np.count_nonzero(rows) >= _BIN_LEAST:
            share = np.average(positive[rows], weights=weight[rows])
            points.append(Point(x=float(np.average(risk[rows], weights=weight[rows])), y=float(share)))
    return points if len(points) > 1 else None


def _points(x: Floats, y: Floats) -> list[Point]:
    """Both ends, and points evenly spaced between them."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(np.int64))
    return [Point(x=float(x[k]), y=float(y[k])) for k in kept]
