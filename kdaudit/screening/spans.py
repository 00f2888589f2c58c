"""Where flagged windows stand in documents.

Documents are cut as the examples were (`kdaudit.corpus.windows`), so a flagged window is found in every
document and at every place that holds a copy of it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import ChatFormat, ExampleTokens
from kdaudit.corpus.answers import AnswerCutter
from kdaudit.corpus.conversations import FlawError
from kdaudit.corpus.documents import Document
from kdaudit.corpus.rendering import Renderer
from kdaudit.corpus.windows import cut
from kdaudit.models.tokenizer import EncodedText, Encoder, ModelTokenizer
from kdaudit.screening.recurrences import Recurrence, Recurrences
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
    """The lowest level of its windows and recurrences, see `Marker`; -1 for none."""
    recurring: tuple[Span, ...] = ()
    """Suffixes of flagged examples at other places than in flagged windows, in order."""
    turns: tuple[int, ...] = ()
    """Places of the flagged answers among a conversation's messages."""
    is_read: bool = True
    """Whether a conversation could be rendered."""


class Flags(NamedTuple):
    """What is known of the examples; see `KeySet`."""

    flagged: KeySet
    scored: KeySet | None
    """Those that were scored; None where all were."""
    levels: KeySet | None = None
    """Those with levels; None where these are not asked for."""

    def of(
        self, identities: list[NDArray[np.int32]]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int8]]:
        """Of windows, by their identities: whether flagged, whether scored, and the level or -1."""
        flagged = self.flagged.holds(identities)
        scored = np.ones_like(flagged) if self.scored is None else self.scored.holds(identities)
        none = np.full(len(flagged), -1, np.int8)
        return flagged, scored, none if self.levels is None else self.levels.levels(identities)


class _Cuts(NamedTuple):
    """One document, cut."""

    places: list[_Place]
    too_short: int
    """Stretches that gave no window."""
    recurring: list[tuple[Span, Recurrence]]


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
        flags: which windows are flagged.
        recurrences: finds the suffixes of flagged examples besides.

    """

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
        config: CorpusConfig,
        minimum_tokens: int,
        flags: Flags,
        recurrences: Recurrences,
    ) -> None:
        self._recurrences = recurrences
        self._encoder = Encoder(tokenizer)
        self._config = config
        self._minimum = minimum_tokens
        self._flags = flags

    def mark(self, batch: list[Document]) -> list[Marks]:
        """The marks of each document; the batch is encoded together."""
        cuts = [self._cut(encoded) for encoded in self._encoder.encode_batch([d.text for d in batch])]
        windows = [place.measured for one in cuts for place in one.places]
        flagged, scored, levels = self._flags.of(windows)
        ends = np.cumsum([0, *(len(one.places) for one in cuts)]).tolist()
        return [
            _marks(one, flagged[start:end], scored[start:end], levels[start:end])
            for one, (start, end) in zip(cuts, pairwise(ends), strict=True)
        ]

    def _cut(self, encoded: EncodedText) -> _Cuts:
        config = self._config
        stride = config.stride or config.window
        found = cut(len(encoded), window=config.window, stride=stride, minimum=self._minimum)
        ids = encoded.ids
        places = [
            _Place(Span(*encoded.span(start, end)), ids[start : start + self._minimum])
            for start, end in found.bounds
        ]
        recurring = [(Span(*encoded.span(one.start, one.end)), one) for one in self._recurrences.find(ids)]
        return _Cuts(places, found.too_short, recurring)


class AnswerMarker:
    """Finds flagged answers.

    Args:
        tokenizer: the one that cut them.
        config: the corpus section.
        chat: how conversations became token ids.
        tokens: of prompt and target.
        flags: which examples are flagged.

    """

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        config: CorpusConfig,
        chat: ChatFormat,
        tokens: ExampleTokens,
        flags: Flags,
    ) -> None:
        self._renderer = Renderer(chat.template, tokenizer)
        self._cutter = AnswerCutter(tokenizer, chat, window=config.window, tokens=tokens)
        self._usual_prefix = tokens.prefix
        self._flags = flags

    def mark(self, batch: list[Document]) -> list[Marks]:
        """The marks of each conversation."""
        return [self._mark(document) for document in batch]

    def _mark(self, document: Document) -> Marks:
        short = self._cutter.too_short + self._cutter.without_prompt
        try:
            rendered = self._renderer.rendered(document)
        except FlawError:
            return Marks([], 0, 0, is_read=False)
        (windows,) = self._cutter.by_turn([rendered])
        identities = [window.identity(self._usual_prefix) for window in windows.values()]
        flagged, scored, levels = self._flags.of(identities)
        places = {answer.turn: Span(answer.start, answer.end) for answer in rendered.answers}
        turns = tuple(turn for turn, flag in zip(windows, flagged, strict=True) if flag)
        return Marks(
            [places[turn] for turn in turns],
            int(np.count_nonzero(~scored)),
            self._cutter.too_short + self._cutter.without_prompt - short,
            _lowest(levels),
            turns=turns,
        )


def _marks(
    cuts: _Cuts, flagged: NDArray[np.bool_], scored: NDArray[np.bool_], levels: NDArray[np.int8]
) -> Marks:
    spans = [place.span for place, flag in zip(cuts.places, flagged, strict=True) if flag]
    besides = [span for span, one in cuts.recurring if one.flagged and not _is_in(span, spans)]
    found = np.append(levels, [np.int8(one.level) for _, one in cuts.recurring]).astype(np.int8)
    return Marks(spans, int(np.count_nonzero(~scored)), cuts.too_short, _lowest(found), tuple(besides))


def _is_in(span: Span, spans: list[Span]) -> bool:
    """Whether one of the spans, ordered by start, holds this one whole."""
    return any(one.start <= span.start and span.end <= one.end for one in spans)


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
