"""The versioned schema of screen.json, as frozen pydantic models.

A figure that is not available is None and `notes` says why. The record holds neither training text nor
document ids.
"""

from __future__ import annotations

from typing import Literal

from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.notes import Notes, SchemaVersion
from kdaudit.schemas.predictor import Origin, PredictorResult
from kdaudit.schemas.result import Result, Role
from kdaudit.schemas.results import EngineCheck, ExtractionResult

Drop = Literal["document", "window"]
Format = Literal["parquet", "jsonl"]


class ScreenedModel(Result):
    """How much one of the models memorizes of the corpus."""

    role: Role
    """A screening has no base."""
    examples: int
    memorized: int
    fingerprint: str
    engine_check: EngineCheck | None = None
    """None if the check was not possible; a note says why."""


class Quantiles(Result):
    """The distribution of a feature."""

    p5: float
    p25: float
    p50: float
    p75: float
    p95: float


class FeatureSpread(Result):
    """A feature of the flagged examples against that of the others; None where there are none."""

    flagged: Quantiles | None
    kept: Quantiles | None


class FlaggedCounts(Result):
    """What is flagged."""

    examples: int
    """Distinct examples."""
    places: int
    """Their occurrences in the corpus."""
    documents: int
    """Documents with a flagged window."""
    memorized: int
    """Observed: flagged examples that the models were measured to memorize, which takes no predictor."""
    predicted: int
    """Predicted: the other flagged examples, whose risk reaches the threshold."""


class TradeoffPoint(Result):
    """What would be flagged, and so dropped, to guarantee a recall."""

    recall: float
    confidence: float
    chosen: bool
    """Whether this is the guarantee of the screening itself."""
    threshold: float | None
    """None, as the counts, if too few examples are memorized to guarantee this recall."""
    flagged_examples: int | None
    """Distinct examples, those observed to be memorized included."""
    flagged_windows: int | None
    """Their occurrences in the corpus."""
    flagged_documents: int | None
    """Documents with such an occurrence, or with the suffix of such an example elsewhere."""
    reason: str | None = None
    """Why there is no threshold; None where there is one."""


class KeptCounts(Result):
    """The pass that wrote kept/, counted."""

    documents_read: int
    """Rows of the corpus: kept, dropped, and not valid Unicode."""
    documents_flagged: int
    """Documents with a flagged window."""
    documents_kept: int
    """Documents that are kept at least in part; empty ones too."""
    documents_dropped: int
    """Documents of which nothing is kept, because of what is flagged in them."""
    rows_written: int
    """Rows of kept/; with `drop: window` a document may give several."""
    windows_flagged: int
    """Flagged windows, duplicates included."""
    windows_unscored: int
    """Windows outside the sample (`corpus.limit`), in documents that are kept."""
    too_short: int
    """Stretches too short to be scored, in documents that are kept."""
    empty: int
    """Rows without text, kept as they are."""
    undecodable: int
    """Rows left out because their text is not valid Unicode."""
    characters_before: int
    """Of the text of all documents, in code points."""
    characters_after: int
    """Of the text in kept/, or of what would be there."""
    documents_by_recall: tuple[int, ...] = ()
    """Documents with a window that is flagged at each threshold of `tradeoff`, or with its suffix, in its
    order."""
    recurrences: int = 0
    """Other places where the suffix of a flagged example stands, outside flagged windows: cut out too, or
    with their documents dropped. 0 in older files, and for corpora of prompts and answers."""
    rows_unread: int = 0
    """Rows of prompts and answers that gave no example, as one with an unknown role: kept as they are."""
    withheld: bool = False
    """Whether nothing was written, because more is flagged than `max_flagged` allows; all keys but
    `rows_written` then say what would have been written."""
    columns_replaced: tuple[str, ...] = ()
    """Columns with values that JSON readers refuse, which were written otherwise: NaN and infinity as null,
    half of a surrogate pair as U+FFFD, integers beyond 64 bits as the nearest double."""


class ScreenRecord(Result):
    """screen.json."""

    schema_version: SchemaVersion
    name: str
    created: str
    """UTC, ISO 8601."""
    kdaudit_version: str
    seed: int
    corpus: CorpusResult
    extraction: ExtractionResult
    models: dict[str, ScreenedModel]
    labels: str
    """What counts as a positive: student, easy_core or teacher."""
    origin: Origin | None
    """What the predictor was fitted on; None where there is no predictor."""
    predictor: PredictorResult
    risk_histogram: dict[str, list[float]] | None
    """`edges` (n + 1 rising risks), and n counts of examples each for `flagged` and `kept`."""
    features: dict[str, FeatureSpread]
    """By the feature's column in flagged.parquet."""
    flagged: FlaggedCounts
    tradeoff: list[TradeoffPoint] | None = None
    """By rising recall; None if no predictor was fitted here (a note says why), and in older files."""
    kept: KeptCounts
    drop: Drop
    format: Format
    max_flagged: float = 1.0
    """Share of the examples, or of the documents that are left out, above which nothing is written."""
    notes: Notes
