"""The data of the report's charts of the predictor.

The curves are of out-of-fold risks: each example's from a model that was fitted without it. Each has at most
`MOST_POINTS` points.
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
_BIN_POSITIVES = 5
"""Positives for each bin of the calibration curve; with fewer positives there are fewer bins."""
_HISTOGRAM_BINS = 20


class PredictorCurves(NamedTuple):
    """The charts' points, x rising."""

    roc: list[Point]
    """Share of the others flagged, share of the positives flagged."""
    precision_recall: list[Point]
    """Recall, precision."""
    calibration: list[Point] | None
    """Mean risk, share of positives, in bins of rising risk that expect equally many positives: quantiles of
    the expected positives, since bins of equally many examples would hold next to none where risk is rare.
    None with fewer than two bins."""


def draw_curves(risk: Floats, positive: NDArray[np.bool_], weight: Floats | None = None) -> PredictorCurves:
    """The curves of scored examples: two arrays (n,), with both classes in them.

    Args:
        risk: 0 to 1.
        positive: whether memorized.
        weight: examples of the corpus that each stands for; None for one each.

    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    flagged_others, flagged, _ = roc_curve(positive, risk, sample_weight=weight)
    precision, recall, _ = precision_recall_curve(
        positive, risk, sample_weight=weight, drop_intermediate=True
    )
    return PredictorCurves(
        _points(flagged_others, flagged),
        _points(recall[::-1], precision[::-1]),
        _calibration(risk, positive, np.ones(len(risk)) if weight is None else weight),
    )


def risk_histogram(
    risk: Floats, groups: Mapping[str, NDArray[np.bool_]], weight: Floats | None = None
) -> dict[str, list[float]]:
    """Counts of each group's examples by risk: "edges", 21 from 0 to 1, and 20 counts a group.

    Args:
        risk: of each example, 0 to 1: (n,).
        groups: which examples each holds, (n,), by its name.
        weight: examples of the corpus that each stands for, (n,); None for one each.

    """
    edges = np.linspace(0, 1, _HISTOGRAM_BINS + 1)
    counts = {
        name: np.histogram(risk[rows], edges, weights=None if weight is None else weight[rows])[0]
        .astype(float)
        .tolist()
        for name, rows in groups.items()
    }
    return {"edges": edges.tolist(), **counts}


def _calibration(risk: Floats, positive: NDArray[np.bool_], weight: Floats) -> list[Point] | None:
    bins = min(_BINS, int(positive.sum()) // _BIN_POSITIVES)
    if bins < 2:
        return None
    shares = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(risk, shares, weights=risk * weight, method="inverted_cdf"))
    of_row = np.searchsorted(edges, risk)
    counts = np.bincount(of_row, weight)
    means, found = (
        np.bincount(of_row, values * weight) / np.where(counts, counts, 1) for values in (risk, positive)
    )
    points = [Point(x=x, y=y) for x, y, count in zip(means, found, counts, strict=True) if count]
    return points if len(points) > 1 else None


def _points(x: Floats, y: Floats) -> list[Point]:
    """Both ends, and points evenly spaced between them."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(np.int64))
    return [Point(x=float(x[k]), y=float(y[k])) for k in kept]
