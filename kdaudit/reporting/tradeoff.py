"""The trade of text against recall in a screening: two charts and a table from `tradeoff` in screen.json.

The horizontal axis is logarithmic in the share that may be missed, so that recalls of 90, 99 and 99.9% are
equally far apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from kdaudit.reporting.formatting import count, percent
from kdaudit.reporting.predictor_charts import BOTTOM, LEFT, RIGHT, TOP, Panel
from kdaudit.reporting.scales import Linear, Tick, round_step
from kdaudit.risk import percent_down
from kdaudit.schemas.screening import ScreenRecord, TradeoffPoint

_AXIS = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Recalls with a tick."""


class TradeoffRow(NamedTuple):
    """A row of the table; counts with their shares, all None where a recall cannot be guaranteed."""

    recall: str
    chosen: bool
    threshold: float | None
    examples: str | None
    windows: str | None
    documents: str | None
    reason: str | None
    """Why it cannot be guaranteed."""


class Tradeoff(NamedTuple):
    """Charts and table; both empty without a curve."""

    panels: list[Panel]
    rows: list[TradeoffRow]


class _Series(NamedTuple):
    """What is counted, and out of how many."""

    title: str
    of: Callable[[TradeoffPoint], int | None]
    total: int


def tradeoff(record: ScreenRecord) -> Tradeoff:
    """A chart for windows and one for documents, where they can be drawn, and a row for each recall."""
    return Tradeoff(_panels(record), _rows(record))


def _rows(record: ScreenRecord) -> list[TradeoffRow]:
    return [
        TradeoffRow(
            percent_down(one.recall),
            one.chosen,
            one.threshold,
            _counted(one.flagged_examples, record.corpus.examples),
            _counted(one.flagged_windows, None if record.corpus.sampled else record.corpus.windows),
            _counted(one.flagged_documents, record.kept.documents_read),
            one.reason,
        )
        for one in record.tradeoff or []
    ]


def _counted(found: int | None, total: int | None) -> str | None:
    if found is None:
        return None
    return f"{count(found)} ({percent(found / total)})" if total else count(found)


def _panels(record: ScreenRecord) -> list[Panel]:
    corpus = record.corpus
    # In a sample not all windows are scored: the chart is about the sampled examples.
    if corpus.sampled:
        windows = _Series("Sampled examples", lambda one: one.flagged_examples, corpus.examples)
    else:
        windows = _Series("Windows", lambda one: one.flagged_windows, corpus.windows)
    documents = _Series("Documents", lambda one: one.flagged_documents, record.kept.documents_read)
    drawn = [_panel(series, record.tradeoff or []) for series in (windows, documents)]
    return [panel for panel in drawn if panel is not None]


def _panel(series: _Series, points: list[TradeoffPoint]) -> Panel | None:
    known = [
        (one, found / series.total)
        for one in points
        if (found := series.of(one)) is not None and series.total
    ]
    if not known:
        return None
    top = max(share for _, share in known) or 1.0
    step = round_step(top, 4)
    steps = math.ceil(top / step - 1e-9)
    x_scale = Linear(_nines(_AXIS[0]), max(2.0, *(_nines(one.recall) for one, _ in known)), LEFT, RIGHT)
    y_scale = Linear(0, step * steps, BOTTOM, TOP)
    drawn = [(x_scale.at(_nines(one.recall)), y_scale.at(share)) for one, share in known]
    chosen = next((one for one, _ in known if one.chosen), None)
    return Panel(
        f"{series.title} flagged",
        _words(series, known),
        "recall guaranteed",
        "share of the corpus flagged",
        [Tick(x_scale.at(_nines(recall)), percent_down(recall)) for recall in _AXIS],
        [Tick(y_scale.at(k * step), percent(k * step)) for k in range(steps + 1)],
        line=" ".join(f"{x},{y}" for x, y in drawn),
        dots="".join(f"M{x} {y}h0" for x, y in drawn),
        rule=None if chosen is None else x_scale.at(_nines(chosen.recall)),
    )


def _nines(recall: float) -> float:
    """0.9 is 1, 0.99 is 2."""
    return -math.log10(1 - recall)


def _words(series: _Series, known: list[tuple[TradeoffPoint, float]]) -> str:
    (first, least), (last, most) = known[0], known[-1]
    kind = series.title.lower()
    words = f"To guarantee {percent_down(first.recall)}, {percent(least)} of the {kind} are flagged"
    if last is not first:
        words += f"; to guarantee {percent_down(last.recall)}, {percent(most)}"
    chosen = next((one for one, _ in known if one.chosen), None)
    return f"{words}." + (f" Dashed: the recall chosen, {percent_down(chosen.recall)}." if chosen else "")
