"""Entropy against log-probability: geometry of a scatter for each model, and the same in figures.

`entropy_logprob` holds for each model its examples' mean token entropy (x) and mean log-probability (y),
in nats. Text that a model itself would generate has on average a log-probability of minus its entropy (the
definition of entropy); that is the reference line, and text above it is more likely than the model's
uncertainty suggests.
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from kdaudit.reporting.formatting import count, quoted, significant
from kdaudit.reporting.predictor_charts import BOTTOM, LEFT, RIGHT, TOP, Panel
from kdaudit.reporting.scales import Linear
from kdaudit.schemas.results import Curves, Point

_MOST_POINTS = 1000
_QUARTER = 4


class EntropyRow(NamedTuple):
    """A summary of a model's points, all in nats."""

    model: str
    points: int
    entropy: float
    """Median, as the other three."""
    log_probability: float
    uncertain_entropy: float
    """Of the quarter of points with the highest entropy."""
    uncertain_log_probability: float


def entropy_panels(curves: Curves) -> list[Panel]:
    """A chart a model, all on the same axes."""
    groups = _groups(curves)
    every = [point for points in groups.values() for point in points]
    if not every:
        return []
    x_scale = Linear(min(p.x for p in every), max(p.x for p in every), LEFT, RIGHT)
    y_scale = Linear(min(p.y for p in every), max(p.y for p in every), BOTTOM, TOP)
    return [_scatter(name, points, x_scale, y_scale) for name, points in groups.items()]


def entropy_rows(curves: Curves) -> list[EntropyRow]:
    """The medians of each model's points, and of its quarter with the highest entropy."""
    return [_row(name, points) for name, points in _groups(curves).items()]


def _groups(curves: Curves) -> dict[str, list[Point]]:
    return {name: points for name, points in (curves.entropy_logprob or {}).items() if points}


def _row(name: str, points: list[Point]) -> EntropyRow:
    uncertain = sorted(points, key=lambda point: -point.x)[: max(1, len(points) // _QUARTER)]
    return EntropyRow(
        name,
        len(points),
        median(point.x for point in points),
        median(point.y for point in points),
        median(point.x for point in uncertain),
        median(point.y for point in uncertain),
    )


def _scatter(name: str, points: list[Point], x_scale: Linear, y_scale: Linear) -> Panel:
    dots = "".join(f"M{x_scale.at(point.x)} {y_scale.at(point.y)}h0" for point in _thin(points))
    row = _row(name, points)
    words = (
        f"{count(len(points))} examples under {quoted(name)}. Of the quarter of highest entropy, the median "
        f"entropy is {significant(row.uncertain_entropy, 2)} and the median log-probability "
        f"{significant(row.uncertain_log_probability, 2)}."
    )
    return Panel(
        name,
        words,
        "mean token entropy (nats)",
        "log-probability (nats)",
        x_scale.ticks(),
        y_scale.ticks(),
        diagonal=_as_probable_as_its_own(x_scale, y_scale),
        dots=dots,
    )


def _as_probable_as_its_own(x_scale: Linear, y_scale: Linear) -> str:
    """The line y = -x as far as it runs inside the plot."""
    low, high = max(x_scale.low, -y_scale.high), min(x_scale.high, -y_scale.low)
    if low >= high:
        return ""
    return f"{x_scale.at(low)},{y_scale.at(-low)} {x_scale.at(high)},{y_scale.at(-high)}"


def _thin(points: list[Point]) -> list[Point]:
    return points[:: -(-len(points) // _MOST_POINTS)]
