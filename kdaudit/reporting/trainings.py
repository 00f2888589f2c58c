"""trainings.html: the figures of several runs, with mean, spread and both sources of variance.

It is made from trainings.json's own type, which holds no training text.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from kdaudit.reporting.formatting import (
    ABSENT,
    Formatter,
    interval,
    percent,
    points,
    significant,
    times,
)
from kdaudit.reporting.render import render
from kdaudit.schemas.result import Interval
from kdaudit.schemas.trainings import Form, TrainingsFigure, TrainingsResults

_TITLES = {"soft_vs_hard": "Hard against soft distillation", "predictor": "Risk predictor"}


class Row(NamedTuple):
    """A figure as it is shown."""

    what: str
    values: list[tuple[str, str]]
    """Of each run, with its own interval."""
    mean: str
    deviation: str
    trainings: str
    """Interval over trainings."""
    both: str
    """Interval with both sources of variance."""
    share: str
    """Of both variances, that between trainings."""


class Part(NamedTuple):
    """The figures of a model, or of a comparison."""

    title: str
    rows: list[Row]


def render_trainings(results: TrainingsResults) -> bytes:
    """The page."""
    parts = [
        Part(_TITLES.get(about, about), [_row(figure) for figure in figures])
        for about, figures in groupby(_by_subject(results.figures), key=lambda figure: figure.about)
    ]
    return render("trainings.html.j2", results=results, parts=parts)


def _by_subject(figures: list[TrainingsFigure]) -> list[TrainingsFigure]:
    """The figures with those of one model together, in the order in which models come."""
    order = list(dict.fromkeys(figure.about for figure in figures))
    return sorted(figures, key=lambda figure: order.index(figure.about))


def _row(figure: TrainingsFigure) -> Row:
    form = _FORMS[figure.form]
    shown = zip(figure.values, figure.intervals, strict=True)
    return Row(
        figure.what,
        [(_text(value, form), _interval(ends, form)) for value, ends in shown],
        _text(figure.mean, form),
        _text(figure.deviation, _UNSIGNED.get(figure.form, form)),
        _interval(figure.ci95, form) or ABSENT,
        _interval(figure.ci95_both_sources, form) or ABSENT,
        _share(figure),
    )


def _text(value: float | None, form: Formatter) -> str:
    return ABSENT if value is None else form(value, 2)


def _interval(ends: Interval | None, form: Formatter) -> str:
    return "" if ends is None else interval(ends, form)


def _share(figure: TrainingsFigure) -> str:
    found = figure.variance
    if found is None or found.within is None or not found.between + found.within:
        return ABSENT
    return percent(found.between / (found.between + found.within))


def _count(value: float, digits: int) -> str:
    """A count, or the mean of counts."""
    return significant(value, max(digits, 3))


def _number(value: float, digits: int) -> str:
    return significant(value, max(digits, 4))


def _spread_points(value: float, digits: int) -> str:
    return points(value, digits).removeprefix("+")


_FORMS: dict[Form, Callable[[float, int], str]] = {
    "percent": percent,
    "points": points,
    "times": times,
    "count": _count,
    "number": _number,
}
_UNSIGNED: dict[Form, Callable[[float, int], str]] = {"percent": _spread_points, "points": _spread_points}
"""A spread of shares is in percentage points and has no sign."""
