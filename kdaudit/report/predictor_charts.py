"""Geometry of the predictor's charts, from the curves of results.json.

`risk_histogram` holds "edges" (n + 1 rising risks) and for each group of examples n counts.
`entropy_logprob` holds for each model its examples' mean token entropy (x) and log-probability (y).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdaudit.report.scales import Linear, Tick, log_shares
from kdaudit.results import Curves, Point

WIDTH, HEIGHT = 340, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 326.0, 12.0, 240.0
_MOST_POINTS = 1500


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


def panels(curves: Curves) -> list[Panel]:
    """The charts that can be drawn, in the order of reading."""
    drawn = []
    if curves.roc:
        words = "Share of memorized examples flagged against share of others flagged, as the threshold falls."
        drawn.append(_unit("ROC", words, "others flagged", "memorized flagged", curves.roc, rising=True))
    if curves.precision_recall:
        words = (
            "Share of the flagged that are memorized, against the share of the memorized that are flagged."
        )
        drawn.append(_unit("Precision and recall", words, "recall", "precision", curves.precision_recall))
    if curves.calibration:
        words = "Share that turned out memorized, against the risk predicted; on the diagonal they agree."
        drawn.append(
            _unit("Calibration", words, "risk predicted", "memorized", curves.calibration, rising=True)
        )
    drawn += _histograms(curves.risk_histogram or {})
    return drawn


def entropy_panels(curves: Curves) -> list[Panel]:
    """Mean token entropy against log-probability: a chart a model, all on the same axes."""
    groups = {name: points for name, points in (curves.entropy_logprob or {}).items() if points}
    every = [point for points in groups.values() for point in points]
    if not every:
        return []
    x_scale = Linear(min(p.x for p in every), max(p.x for p in every), _LEFT, _RIGHT)
    y_scale = Linear(min(p.y for p in every), max(p.y for p in every), _BOTTOM, _TOP)
    return [_scatter(name, points, x_scale, y_scale) for name, points in groups.items()]


def _unit(
    title: str, words: str, x_label: str, y_label: str, points: list[Point], *, rising: bool = False
) -> Panel:
    x_scale, y_scale = Linear(0, 1, _LEFT, _RIGHT), Linear(0, 1, _BOTTOM, _TOP)
    line = " ".join(f"{x_scale.at(point.x)},{y_scale.at(point.y)}" for point in _thin(points))
    diagonal = f"{_LEFT},{_BOTTOM} {_RIGHT},{_TOP}" if rising else ""
    return Panel(
        title, words, x_label, y_label, x_scale.ticks(), y_scale.ticks(), line=line, diagonal=diagonal
    )


def _histograms(histogram: dict[str, list[float]]) -> list[Panel]:
    edges = histogram.get("edges", [])
    groups = {name: counts for name, counts in histogram.items() if name != "edges"}
    return [
        _histogram(name, edges, counts) for name, counts in groups.items() if len(edges) == len(counts) + 1
    ]


def _histogram(name: str, edges: list[float], counts: list[float]) -> Panel:
    total = sum(counts) or 1.0
    shares = [number / total for number in counts]
    x_scale = Linear(edges[0], edges[-1], _LEFT, _RIGHT)
    y_scale = log_shares(shares, _BOTTOM, _TOP, top=0)
    y_scale = y_scale._replace(low=y_scale.low - 1)  # so that the smallest share is a bar, not a line
    bars = [
        Bar(
            x_scale.at(low),
            y_scale.at(share),
            _gap(x_scale, low, high),
            round(_BOTTOM - y_scale.at(share), 1),
        )
        for low, high, share in zip(edges, edges[1:], shares, strict=False)
        if share > 0
    ]
    group = name.replace("_", " ")
    words = f"How the predicted risk of {group} examples is spread; the upright axis is logarithmic."
    title = f"Risk: {group}"
    return Panel(title, words, "risk predicted", "share", x_scale.ticks(), y_scale.ticks(), bars=bars)


def _gap(scale: Linear, low: float, high: float) -> float:
    return max(1.0, round(scale.at(high) - scale.at(low) - 1, 1))


def _scatter(name: str, points: list[Point], x_scale: Linear, y_scale: Linear) -> Panel:
    dots = "".join(f"M{x_scale.at(point.x)} {y_scale.at(point.y)}h0" for point in _thin(points))
    words = f"Mean token entropy against log-probability of examples under {name}."
    return Panel(
        name, words, "mean token entropy", "log-probability", x_scale.ticks(), y_scale.ticks(), dots=dots
    )


def _thin(points: list[Point]) -> list[Point]:
    step = -(-len(points) // _MOST_POINTS)
    return [*points[::step], points[-1]] if step > 1 else points
