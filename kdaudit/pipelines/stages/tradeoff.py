"""What a screening would flag for each recall that could be guaranteed: the trade of text against recall."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags, Floats
from kdaudit.pipelines.stages.predicting import Prediction
from kdaudit.risk.guarantee import positives_needed
from kdaudit.schemas.predictor import RecallThreshold
from kdaudit.schemas.screening import KeptCounts, TradeoffPoint
from kdaudit.screening.kept import Levels


class _Counts(NamedTuple):
    """What is flagged at one threshold."""

    examples: int | None
    windows: int | None
    documents: int | None


_NONE = _Counts(None, None, None)


def levels_of(prediction: Prediction, risk: Floats | None, observed: Flags) -> Levels | None:
    """The lowest recall whose threshold flags each example; None without thresholds.

    Args:
        prediction: its thresholds fall as recall rises.
        risk: of each example: (examples,); None without a predictor.
        observed: examples that are flagged whatever their risk: (examples,).

    """
    known = [one.threshold for one in prediction.thresholds if one.threshold is not None]
    if risk is None or not known:
        return None
    passed = np.zeros(len(risk), dtype=np.int8)
    for threshold in known:
        passed += risk >= threshold
    return Levels(np.where(observed, np.int8(0), np.int8(len(known)) - passed), len(known))


def tradeoff_of(
    prediction: Prediction, levels: Levels | None, copies: NDArray[np.int32], kept: KeptCounts
) -> list[TradeoffPoint] | None:
    """The points of the curve, by rising recall; None without a predictor that was fitted here.

    Args:
        prediction: thresholds, and the guarantee that was chosen.
        levels: see `levels_of`; None if no recall can be guaranteed.
        copies: occurrences of each example: (examples,).
        kept: has the documents.

    """
    counts = iter([] if levels is None else _counts(levels, copies, kept))
    points = [
        _point(one, prediction, next(counts) if one.threshold is not None else _NONE)
        for one in prediction.thresholds
    ]
    return points or None


def _counts(levels: Levels, copies: NDArray[np.int32], kept: KeptCounts) -> list[_Counts]:
    """Examples, windows and documents at each threshold."""
    shape = {"minlength": levels.thresholds + 1}
    examples = np.cumsum(np.bincount(levels.of_example, **shape)).tolist()
    windows = np.cumsum(np.bincount(levels.of_example, copies, **shape)).astype(np.int64).tolist()
    documents = kept.documents_by_recall or (None,) * levels.thresholds  # not counted by earlier versions
    return [_Counts(*one) for one in zip(examples, windows, documents, strict=False)]


def _point(one: RecallThreshold, prediction: Prediction, counts: _Counts) -> TradeoffPoint:
    guarantee = prediction.result.promise
    return TradeoffPoint(
        **one.model_dump(),
        chosen=guarantee is not None and one.recall == guarantee.recall,
        flagged_examples=counts.examples,
        flagged_windows=counts.windows,
        flagged_documents=counts.documents,
        reason=None if one.threshold is not None else _missing(one, prediction),
    )


def _missing(one: RecallThreshold, prediction: Prediction) -> str:
    guarantee = prediction.result.promise
    by_document = guarantee is not None and guarantee.unit == "documents"
    units = "documents with memorized examples" if by_document else "memorized texts"
    return f"{positives_needed(one.recall, one.confidence):,} {units} are needed"
