"""Geometry of the charts of memorization: plain numbers that the SVG macros draw.

Horizontal numbers are percent of the chart's width, vertical numbers are pixels: a chart fits small and large
screens, and its text keeps its size.

Models differ by colour, by marker or dash pattern, and by their name beside the mark, so a chart can be read
in grey. A logarithmic axis has no zero: zeros are shown left of it, after a break in the axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import NamedTuple

from kdaudit.reporting.formatting import count, percent, percent_interval, wider
from kdaudit.reporting.overlap import Inheritance
from kdaudit.reporting.scales import Linear, LogShares, Tick, log_shares
from kdaudit.reporting.shown_text import keep_head
from kdaudit.schemas.attacks import SampledPoint
from kdaudit.schemas.result import Interval
from kdaudit.schemas.results import ModelResult

_LABEL_LENGTH = 18
_PLOT_LEFT, _PLOT_RIGHT = 13.0, 71.0
_ROW = 58
_LEAST_SEGMENT = 0.8
_ZERO, _BREAK = 2.0, 6.0
_TOP, _BOTTOM = 22, 322
_LEAST_POINTS = 2
"""Points that a line takes."""


class Look(NamedTuple):
    """How a model is drawn."""

    css: str
    """teacher, baseline, base, soft, hard or student: colour and marker."""
    dash: int
    """Dash pattern that distinguishes it from others of its kind: 0 to 3."""


class RateBar(NamedTuple):
    """A model's rate: a dot, its interval's bar, and the rate on the holdout."""

    name: str
    label: str
    value: str
    interval: str
    look: Look
    y: int
    x: float
    low: float
    high: float
    floor: float | None


class RateChart(NamedTuple):
    """Dots with bars on a logarithmic axis; `zero` is where zeros stand, None where there are none."""

    rows: list[RateBar]
    ticks: list[Tick]
    zero: float | None
    pause: float
    """Where the axis breaks off between zero and the logarithmic part, if there is a zero."""
    bottom: int


class Line(NamedTuple):
    """One model's curve."""

    name: str
    label: str
    look: Look
    points: str
    """SVG points, in percent and pixels: for a viewport that stretches along."""
    end: tuple[float, float]
    label_y: float


class LineChart(NamedTuple):
    """Shares of examples, on a logarithmic axis: with at least k matched tokens, or within n samples."""

    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    left: float
    right: float
    bottom: int


class Segment(NamedTuple):
    """A segment of a bar."""

    name: str
    examples: int
    css: str
    x: float
    width: float


class StackedBar(NamedTuple):
    """A bar divided into segments."""

    title: str
    segments: list[Segment]


def looks(models: Mapping[str, ModelResult]) -> dict[str, Look]:
    """A look for each model: by role and kind, with a dash pattern for each of a kind."""
    seen: dict[str, int] = {}
    found = {}
    for name, model in models.items():
        css = model.role if model.role != "student" else model.kd or "student"
        found[name] = Look(css, seen.get(css, 0) % 4)
        seen[css] = seen.get(css, 0) + 1
    return found


def rate_chart(models: Mapping[str, ModelResult]) -> RateChart:
    """Every model's memorization rate with its interval and holdout floor."""
    shares = [share for model in models.values() for share in _shares(model)]
    zero = _ZERO if any(share == 0 for share in shares) else None
    scale = log_shares(shares, 3 if zero is None else 14, 97)
    styles = looks(models)
    rows = [
        _rate_bar(name, model, styles[name], _ROW * index + 36, scale)
        for index, (name, model) in enumerate(models.items())
    ]
    return RateChart(rows, scale.ticks(), zero, _BREAK, _ROW * len(rows) + 4)


def _shares(model: ModelResult) -> list[float]:
    low, high = _interval(model)
    ends = [model.rate, low, high, model.holdout.rate if model.holdout else None]
    return [share for share in ends if share is not None]


def _interval(model: ModelResult) -> Interval:
    return wider(model.ci95, model.ci95_by_document) or model.ci95


def _rate_bar(name: str, model: ModelResult, look: Look, y: int, scale: LogShares) -> RateBar:
    def place(share: float) -> float:
        return scale.at(share) if share > 0 else _ZERO

    low, high = _interval(model)
    x = place(model.rate)
    return RateBar(
        name,
        _label(name),
        percent(model.rate),
        percent_interval(_interval(model)),
        look,
        y,
        x,
        x if low is None else place(low),
        x if high is None else place(high),
        None if model.holdout is None else place(model.holdout.rate),
    )


def survival_chart(models: Mapping[str, ModelResult]) -> LineChart:
    """Every model's share of examples by matched tokens."""
    tokens = max((len(model.survival) for model in models.values()), default=1) - 1
    x_scale = Linear(0, max(tokens, 1), _PLOT_LEFT, _PLOT_RIGHT)
    shares = (share for model in models.values() for share in model.survival)
    y_scale = log_shares(shares, _BOTTOM, _TOP, top=0)
    styles = looks(models)
    lines = [
        _line(name, styles[name], list(enumerate(model.survival)), x_scale, y_scale)
        for name, model in models.items()
    ]
    return _line_chart(lines, x_scale.ticks(), y_scale)


def queries_chart(
    models: Mapping[str, ModelResult], curves: Mapping[str, Sequence[SampledPoint]]
) -> LineChart | None:
    """Each model's share of examples by number of samples, for one p; None where there is no line to draw."""
    queries = sorted({point.queries for curve in curves.values() for point in curve})
    shares = [point.rate for curve in curves.values() for point in curve]
    if len(queries) < _LEAST_POINTS or not any(shares):
        return None
    x_scale = Linear(log10(queries[0]), log10(queries[-1]), _PLOT_LEFT, _PLOT_RIGHT)
    y_scale, styles = log_shares(shares, _BOTTOM, _TOP), looks(models)
    lines = [
        _line(name, styles[name], [(log10(one.queries), one.rate) for one in curve], x_scale, y_scale)
        for name, curve in curves.items()
    ]
    return _line_chart(lines, [Tick(x_scale.at(log10(one)), count(one)) for one in queries], y_scale)


def _line_chart(lines: Sequence[Line], x_ticks: list[Tick], y_scale: LogShares) -> LineChart:
    drawn = _spread([line for line in lines if line.points])
    return LineChart(drawn, x_ticks, y_scale.ticks(), _PLOT_LEFT, _PLOT_RIGHT, _BOTTOM)


def _line(
    name: str, look: Look, curve: Sequence[tuple[float, float]], x_scale: Linear, y_scale: LogShares
) -> Line:
    places = [(x_scale.at(x), y_scale.at(share)) for x, share in curve if share > 0]
    points = " ".join(f"{x},{y}" for x, y in places)
    end = places[-1] if places else (0.0, 0.0)
    return Line(name, _label(name), look, points, end, end[1])


def _spread(lines: list[Line], gap: float = 17) -> list[Line]:
    """Move labels apart downwards, then the whole column up by what it overshoots."""
    placed: list[Line] = []
    for line in sorted(lines, key=lambda line: line.end[1]):
        lowest = placed[-1].label_y + gap if placed else 0.0
        placed.append(line._replace(label_y=max(line.end[1], lowest)))
    over = max(0.0, placed[-1].label_y - _BOTTOM) if placed else 0.0
    ys = [line.label_y for line in placed]
    for index in range(len(ys) - 1, -1, -1):
        ceiling = ys[index + 1] - gap if index + 1 < len(ys) else ys[index] - over
        ys[index] = min(ys[index], ceiling)
    return [line._replace(label_y=round(y, 1)) for line, y in zip(placed, ys, strict=True)]


def inheritance_bars(counts: Inheritance) -> list[StackedBar]:
    """All teacher-specific examples, and the inherited ones of them enlarged; none where there are none."""
    inherited = [
        ("soft only", counts.soft_only, "soft"),
        ("both", counts.both, "both"),
        ("hard only", counts.hard_only, "hard"),
    ]
    total = sum(number for _, number, _ in inherited)
    enlarged = StackedBar(f"The {count(total)} inherited", _segments(inherited))
    if counts.neither is None:
        return [enlarged] if total else []
    everything = [*inherited, ("neither", counts.neither, "neither")]
    title = f"All {count(total + counts.neither)} teacher-specific examples"
    bars = [StackedBar(title, _segments(everything)), enlarged._replace(title=f"{enlarged.title}, enlarged")]
    return [bar for bar in bars if bar.segments][: 2 if counts.neither else 1]


def _segments(parts: Sequence[tuple[str, int, str]]) -> list[Segment]:
    """Segments that fill the bar; a count above zero is always visible."""
    shown = [part for part in parts if part[1]]
    total = sum(number for _, number, _ in shown)
    widths = [max(_LEAST_SEGMENT, number / total * 100) for _, number, _ in shown]
    segments, x = [], 0.0
    for (name, number, css), width in zip(shown, widths, strict=True):
        share = width / sum(widths) * 100
        segments.append(Segment(name, number, css, round(x, 1), round(share, 1)))
        x += share
    return segments


def bar_width(value: int | None, largest: int, full: float = 100.0) -> float:
    """A bar's width; a count above zero is always visible."""
    if not value or not largest:
        return 0.0
    return max(1.0, round(value / largest * full, 1))


def _label(name: str) -> str:
    cut = keep_head(name, _LABEL_LENGTH)
    return f"{cut.text}…" if cut.omitted else name
