"""Where flagged windows stand in documents.

Documents are cut as the examples were (`kdaudit.corpus.windows`), so a flagged window is found in every
document and at every place that holds a copy of it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.config.audit import CorpusConfig
from kdaudit.corpus.documents import Document
from kdaudit.corpus.windows import cut
from kdaudit.models.tokenizer import EncodedText, Encoder
from kdaudit.screening.window_hashes import KeySet


class Span(NamedTuple):
    """A stretch of a document, in characters."""

    start: int
    end: int


class Marks(NamedTuple):
    """What was found in one document."""

    flagged: list[Span]
    """Flagged windows, from the first character of each to its last, in order; they overlap where the
    stride is below the window, or where a character's tokens lie on both sides of a cut."""
    unscored: int
    """Windows that were not among those scored."""
    too_short: int
    """Stretches that gave no window, being shorter than prefix + suffix."""
    level: int = -1
    """The lowest level of its windows, see `Marker`; -1 for none."""


class _Place(NamedTuple):
    span: Span
    measured: NDArray[np.int32]
    """Token ids of prefix and suffix."""


class Marker:
    """Finds flagged windows.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or a transformers tokenizer that holds one.
        config: how the corpus was cut.
        minimum_tokens: of a window: prefix + suffix.
        flagged: the flagged windows.
        scored: the windows that were scored; None where all were.
        levels: windows with levels, see `KeySet.levels`; None where these are not asked for.

    """

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
        config: CorpusConfig,
        minimum_tokens: int,
        flagged: KeySet,
        scored: KeySet | None,
        levels: KeySet | None = None,
    ) -> None:
        self._encoder = Encoder(tokenizer)
        self._config = config
        self._minimum = minimum_tokens
        self._flagged = flagged
        self._scored = scored
        self._levels = levels

    def mark(self, batch: list[Document]) -> list[Marks]:
        """The marks of each document; the batch is encoded together."""
        cuts = [self._cut(encoded) for encoded in self._encoder.encode_batch([d.text for d in batch])]
        windows = [place.measured for places, _ in cuts for place in places]
        flagged = self._flagged.holds(windows)
        scored = np.ones_like(flagged) if self._scored is None else self._scored.holds(windows)
        levels = np.full(len(flagged), -1) if self._levels is None else self._levels.levels(windows)
        ends = np.cumsum([0, *(len(places) for places, _ in cuts)]).tolist()
        return [
            _marks(places, too_short, flagged[start:end], scored[start:end])._replace(
                level=_lowest(levels[start:end])
            )
            for (places, too_short), (start, end) in zip(cuts, pairwise(ends), strict=True)
        ]

    def _cut(self, encoded: EncodedText) -> tuple[list[_Place], int]:
        """The document's windows, and how many stretches were too short."""
        config = self._config
        stride = config.stride or config.window
        found = cut(len(encoded), window=config.window, stride=stride, minimum=self._minimum)
        ids = encoded.ids if found.bounds else np.empty(0, dtype=np.int32)
        return [
            _Place(Span(*encoded.span(start, end)), ids[start : start + self._minimum])
            for start, end in found.bounds
        ], found.too_short


def _marks(
    places: list[_Place], too_short: int, flagged: NDArray[np.bool_], scored: NDArray[np.bool_]
) -> Marks:
    spans = [place.span for place, flag in zip(places, flagged, strict=True) if flag]
    return Marks(spans, int(np.count_nonzero(~scored)), too_short)


def _lowest(levels: NDArray[np.integer[Any]]) -> int:
    """The lowest of the levels that are not -1; -1 if all are."""
    found = levels[levels >= 0]
    return int(found.min()) if len(found) else -1


def stretches(text: str, spans: list[Span]) -> list[str]:
    """What is left of a text when the spans, ordered by start, are cut out, but for mere white space."""
    left, start = [], 0
    for span in spans:
        left.append(text[start : span.start])
        start = max(start, span.end)
    left.append(text[start:])
    return [one for one in left if one and not one.isspace()]
