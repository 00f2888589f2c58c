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
from kdaudit.corpus.windows import cut, plain_tokenizer
from kdaudit.screen.keys import KeySet


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


class _Place(NamedTuple):
    span: Span
    token_ids: NDArray[np.int32]


class Marker:
    """Finds flagged windows.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or a transformers tokenizer that holds one.
        config: how the corpus was cut.
        minimum_tokens: of a window: prefix + suffix.
        flagged: the flagged windows.
        scored: the windows that were scored; None where all were.

    """

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
        config: CorpusConfig,
        minimum_tokens: int,
        flagged: KeySet,
        scored: KeySet | None,
    ) -> None:
        self._tokenizer = plain_tokenizer(tokenizer)
        self._config = config
        self._minimum = minimum_tokens
        self._flagged = flagged
        self._scored = scored

    def mark(self, batch: list[Document]) -> list[Marks]:
        """The marks of each document; the batch is encoded together."""
        encodings = self._tokenizer.encode_batch([d.text for d in batch], add_special_tokens=False)
        cuts = [self._cut(encoding) for encoding in encodings]
        windows = [place.token_ids for places, _ in cuts for place in places]
        flagged = self._flagged.holds(windows)
        scored = np.ones_like(flagged) if self._scored is None else self._scored.holds(windows)
        ends = np.cumsum([0, *(len(places) for places, _ in cuts)]).tolist()
        return [
            _marks(places, too_short, flagged[start:end], scored[start:end])
            for (places, too_short), (start, end) in zip(cuts, pairwise(ends), strict=True)
        ]

    def _cut(self, encoding: Any) -> tuple[list[_Place], int]:  # noqa: ANN401
        """The document's windows, and how many stretches were too short."""
        config = self._config
        stride = config.stride or config.window
        found = cut(len(encoding), window=config.window, stride=stride, minimum=self._minimum)
        ids = np.array(encoding.ids if found.bounds else (), dtype=np.int32)
        return [_Place(_span(encoding, *ends), ids[slice(*ends)]) for ends in found.bounds], found.too_short


def _span(encoding: Any, start: int, end: int) -> Span:  # noqa: ANN401
    """The characters of the tokens from `start` up to `end`, as `kdaudit.corpus.windows` takes them."""
    first, _ = encoding.token_to_chars(start)
    _, last = encoding.token_to_chars(end - 1)
    return Span(first, last)


def _marks(
    places: list[_Place], too_short: int, flagged: NDArray[np.bool_], scored: NDArray[np.bool_]
) -> Marks:
    spans = [place.span for place, flag in zip(places, flagged, strict=True) if flag]
    return Marks(spans, int(np.count_nonzero(~scored)), too_short)


def stretches(text: str, spans: list[Span]) -> list[str]:
    """What is left of a text when the spans, ordered by start, are cut out, but for mere white space."""
    left, start = [], 0
    for span in spans:
        left.append(text[start : span.start])
        start = max(start, span.end)
    left.append(text[start:])
    return [one for one in left if one and not one.isspace()]
