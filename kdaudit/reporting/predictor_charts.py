"""Geometry of the predictor's charts, from the curves of results.json, and each chart in words.

`risk_histogram` holds "edges" (n + 1 rising risks) and for each group of examples n counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdaudit.reporting.formatting import count, percent, plural, risk, significant
from kdaudit.reporting.scales import Linear, LogShares, Tick, log_shares
from kdaudit.schemas.results import Curves, Point

LEFT, RIGHT, TOP, BOTTOM = 60.0, 326.0, 30.0, 240.0
"""The plot's edges inside the 340 by 290 units that the SVG macro draws."""
_FEW_OTHERS, _MOST_MEMORIZED = 0.01, 0.9
_RARE = 0.01
"""A bin of a lower mean risk would stand on the edge of a linear axis."""


class Bar(NamedTuple):
    """A histogram's bar."""

    x: float
    y: float
    width: float
    height: float


class Panel(NamedTuple):
    """One small chart."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    line: str = ""
    """SVG points of a line."""
    diagonal: str = ""
    """SVG points of the reference line."""
    dots: str = ""
    """SVG path of dots."""
    bars: Sequence[Bar] = ()
    rule: float | None = None
    """Where an upright line stands: the threshold."""


def panels(curves: Curves, threshold: float | None = None) -> list[Panel]:
    """The charts that can be drawn, in reading order; the histograms show the threshold."""
    drawn = []
    if curves.roc:
        words = (
            "Share of memorized examples flagged against share of others flagged, over all thresholds. "
            f"With {percent(_FEW_OTHERS)} of the others flagged, {percent(_flagged(curves.roc))} of the "
            "memorized are."
        )
        drawn.append(_unit("ROC", words, "others flagged", "memorized flagged", curves.roc, rising=True))
    if curves.precision_recall:
        points = curves.precision_recall
        words = (
            "Share of the flagged that are memorized, against the share of the memorized that are flagged. "
            f"With {percent(_MOST_MEMORIZED)} of the memorized flagged or more, "
            f"up to {percent(_precise(points))} of the flagged are memorized."
        )
        drawn.append(_unit("Precision and recall", words, "recall", "precision", points))
    if curves.calibration:
        drawn.append(_calibration(curves.calibration))
    drawn += _histograms(curves.risk_histogram or {}, threshold)
    return drawn


def _flagged(roc: list[Point]) -> float:
    """The curve's height at few others flagged, between its points as it is drawn."""
    return float(np.interp(_FEW_OTHERS, [point.x for point in roc], [point.y for point in roc]))


def _precise(precision_recall: list[Point]) -> float:
    return max((point.y for point in precision_recall if point.x >= _MOST_MEMORIZED), default=0.0)


def _unit(
    title: str, words: str, x_label: str, y_label: str, points: list[Point], *, rising: bool = False
) -> Panel:
    x_scale, y_scale = Linear(0, 1, LEFT, RIGHT), Linear(0, 1, BOTTOM, TOP)
    line = " ".join(f"{x_scale.at(point.x)},{y_scale.at(point.y)}" for point in points)
    diagonal = f"{LEFT},{BOTTOM} {RIGHT},{TOP}" if rising else ""
    return Panel(
        title, words, x_label, y_label, x_scale.ticks(), y_scale.ticks(), line=line, diagonal=diagonal
    )


def _calibration(points: list[Point]) -> Panel:
    """Bins of examples, on logarithmic axes where risk is rare."""
    words = (
        f"Share of memorized examples against the mean predicted risk, in {plural(len(points), 'bin')} of "
        "rising risk; on the diagonal they agree."
    )
    x_scale: Linear | LogShares = Linear(0, 1, LEFT, RIGHT)
    y_scale: Linear | LogShares = Linear(0, 1, BOTTOM, TOP)
    x_label, y_label = "risk predicted", "memorized"
    if min(point.x for point in points) < _RARE:
        shares = [share for point in points for share in (point.x, point.y)]
        x_scale, y_scale = log_shares(shares, LEFT, RIGHT), log_shares(shares, BOTTOM, TOP)
        x_label, y_label = "risk predicted (log)", "memorized (log)"
        words += " Both axes are logarithmic"
        words += ", and 0 stands at the lower end." if min(point.y for point in points) == 0 else "."
    drawn = [(x_scale.at(point.x), y_scale.at(point.y)) for point in points]
    return Panel(
        "Calibration",
        words,
        x_label,
        y_label,
        x_scale.ticks(),
        y_scale.ticks(),
        line=" ".join(f"{x},{y}" for x, y in drawn),
        diagonal=f"{LEFT},{BOTTOM} {RIGHT},{TOP}",
        dots="".join(f"M{x} {y}h0" for x, y in drawn),
    )


def _histograms(histogram: dict[str, list[float]], threshold: float | None) -> list[Panel]:
    edges = histogram.get("edges", [])
    groups = {name: counts for name, counts in histogram.items() if name != "edges"}
    return [
        _histogram(name, edges, counts, threshold)
        for name, counts in groups.items()
        if len(edges) == len(counts) + 1
    ]


def _histogram(name: str, edges: list[float], counts: list[float], threshold: float | None) -> Panel:
    total = sum(counts) or 1.0
    shares = [number / total for number in counts]
    x_scale = Linear(edges[0], edges[-1], LEFT, RIGHT)
    y_scale = log_shares(shares, BOTTOM, TOP, top=0)
    y_scale = y_scale._replace(low=y_scale.low - 1)  # so that the smallest share is a bar, not a line
    bars = [
        Bar(
            x_scale.at(low),
            y_scale.at(share),
            _gap(x_scale, low, high),
            round(BOTTOM - y_scale.at(share), 1),
        )
        for low, high, share in zip(edges, edges[1:], shares, strict=False)
        if share > 0
    ]
    group = name.replace("_", " ")
    words = _histogram_words(group, edges, counts, threshold)
    rule = None if threshold is None else x_scale.at(threshold)
    x_ticks, y_ticks = x_scale.ticks(), y_scale.ticks()
    return Panel(
        f"Risk: {group}", words, "risk predicted", "share (log)", x_ticks, y_ticks, bars=bars, rule=rule
    )


def _histogram_words(group: str, edges: list[float], counts: list[float], threshold: float | None) -> str:
    most = max(range(len(counts)), key=lambda k: counts[k])
    low, high = significant(edges[most], 2), significant(edges[most + 1], 2)
    words = (
        f"Predicted risk of {plural(round(sum(counts)), f'{group} example')}: "
        f"{count(round(counts[most]))} lie between {low} and {high}, the tallest bar. "
        "The vertical axis is logarithmic."
    )
    if threshold is None:
        return words
    return f"{words} Dashed: the threshold, {risk(threshold)}."


def _gap(scale: Linear, low: float, high: float) -> float:
    return max(1.0, round(scale.at(high) - scale.at(low) - 1, 1))
