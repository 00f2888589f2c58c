"""From screen.json and flagged.parquet to screen.html and screen.public.html.

The public page is made from a record without paths, and from columns of flagged.parquet that hold neither
text nor document ids: it cannot show what was not read. For the rest see `kdaudit.reporting.render`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kdaudit.analysis.flagged import FlaggedExample, read_worst
from kdaudit.reporting.leak_cards import TEXT_LIMIT
from kdaudit.reporting.predictor_charts import Panel, panels
from kdaudit.reporting.public import notes_without_paths, public_corpus_name
from kdaudit.reporting.render import read_outcome, render
from kdaudit.reporting.screening_words import (
    FEATURE_NAMES,
    Headline,
    guarantee,
    headline,
    is_fitted_elsewhere,
    not_covered,
    whose,
)
from kdaudit.reporting.shown_text import Cut, keep_head, visible
from kdaudit.reporting.tradeoff import Tradeoff, tradeoff
from kdaudit.runs import layout
from kdaudit.runs.files import write_file
from kdaudit.schemas.results import Curves
from kdaudit.schemas.screening import FeatureSpread, ScreenRecord

MOST_EXAMPLES = 50
_ID_LENGTH = 200


class Card(NamedTuple):
    """A flagged example as a page shows it."""

    rank: int
    example: FlaggedExample
    text: Cut | None
    """None on the public page, as is the next."""
    document_id: Cut | None


class FeatureRow(NamedTuple):
    """A feature of the flagged examples against that of the others."""

    name: str
    spread: FeatureSpread


class ScreenPage(NamedTuple):
    """All that the template needs."""

    public: bool
    record: ScreenRecord
    headline: Headline
    guarantee: str
    not_covered: list[str]
    whose: str
    """What the labels stand for."""
    is_fitted_elsewhere: bool
    """Whether the predictor comes from another corpus or other models."""
    panels: list[Panel]
    tradeoff: Tradeoff
    features: list[FeatureRow]
    cards: list[Card]


def render_screen(folder: Path, max_examples: int = MOST_EXAMPLES) -> None:
    """Write both pages of a screening.

    Args:
        folder: the screening's output.
        max_examples: flagged examples shown at most, worst first.

    Raises:
        RunStateError: screen.json or flagged.parquet is missing or damaged.
        StorageError: a page could not be written.

    """
    record = read_screen_record(folder)
    full = _page(record, read_worst(folder, max_examples, private=True), public=False)
    open_record = without_paths_in(record)
    public = _page(open_record, read_worst(folder, max_examples, private=False), public=True)
    write_file(folder, layout.SCREEN_REPORT, render("screen.html.j2", page=full))
    write_file(folder, layout.PUBLIC_SCREEN_REPORT, render("screen.html.j2", page=public))


def read_screen_record(folder: Path) -> ScreenRecord:
    """A screening's screen.json.

    Raises:
        RunStateError: it is missing or does not follow the schema.

    """
    return read_outcome(folder / layout.SCREEN, ScreenRecord, "screening", "kdaudit screen")


def without_paths_in(record: ScreenRecord) -> ScreenRecord:
    """The record with only the last part of local paths: of the corpus, and in the notes."""
    path = record.corpus.path
    corpus = record.corpus.model_copy(update={"path": public_corpus_name(path)})
    notes = notes_without_paths(record.notes, path)
    return record.model_copy(update={"corpus": corpus, "notes": notes})


def _page(record: ScreenRecord, worst: list[FlaggedExample], *, public: bool) -> ScreenPage:
    return ScreenPage(
        public=public,
        record=record,
        headline=headline(record),
        guarantee=guarantee(record),
        not_covered=not_covered(record),
        whose=whose(record),
        is_fitted_elsewhere=is_fitted_elsewhere(record),
        panels=panels(Curves(risk_histogram=record.risk_histogram), record.predictor.threshold),
        tradeoff=tradeoff(record),
        features=[FeatureRow(FEATURE_NAMES.get(name, name), one) for name, one in record.features.items()],
        cards=[_card(rank, one) for rank, one in enumerate(worst, 1)],
    )


def _card(rank: int, example: FlaggedExample) -> Card:
    place = example.place
    if place is None:
        return Card(rank, example, None, None)
    text = keep_head(visible(place.text), TEXT_LIMIT)
    return Card(rank, example, text, keep_head(visible(place.document_id), _ID_LENGTH))
