"""Documents -> windows of token ids.

A document is encoded without special tokens, then cut; no window crosses documents. A long one is encoded
in pieces with the same result (`kdaudit.models.tokenizer.encoder`). Where
the text holds the literal string of a special token, such as `<|endoftext|>`, it becomes that token's
id: this is what `tokenizer(text)` does in training unless the tokenizer sets `split_special_tokens`,
which is heeded.

A window's text is the slice of the document from its first token's first character to its last
token's last one. A character whose tokens lie on both sides of a cut (an emoji of four byte-level
tokens) belongs to both texts; in all other cases the texts of a byte-level tokenizer are its decoded ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.config.extraction import ExtractionBase
from kdaudit.corpus.distinct import identity
from kdaudit.corpus.documents import Document
from kdaudit.corpus.joint import JointCutter
from kdaudit.models.tokenizer import EncodedText, Encoder
from kdaudit.models.tokenizer.texts import Places, boundaries

BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 500_000
"""Text encoded together at most; a longer document makes a batch of its own. The tokenizer needs some
150 bytes a character while it encodes."""


class ExampleTokens(NamedTuple):
    """How many tokens of an example are given to a model, and how many it must reproduce."""

    prefix: int
    suffix: int
    least_suffix: int | None = None
    """Of an answer that ends before; None for `suffix`."""

    @classmethod
    def of(cls, extraction: ExtractionBase) -> Self:
        """As the extraction section says."""
        return cls(extraction.prefix_tokens, extraction.suffix_tokens, extraction.min_suffix_tokens)

    @property
    def least(self) -> int:
        """Tokens of the shortest example."""
        return self.prefix + (self.least_suffix or self.suffix)


class Window(NamedTuple):
    """One place of a window in the corpus."""

    document_id: str
    offset: int
    """Of its first token, in tokens from the document's start."""
    text: str
    token_ids: NDArray[np.int32]
    prefix_tokens: int
    """How many of them are the prompt."""
    suffix_tokens: int
    """How many behind those are the target."""
    prompt_end: int | None = None
    """How many characters are the prompt, where models read the text with tokenizers of their own."""
    target_end: int | None = None
    """How many are prompt and target."""

    @property
    def measured(self) -> NDArray[np.int32]:
        """The token ids of prefix + suffix."""
        return self.token_ids[: self.prefix_tokens + self.suffix_tokens]

    def identity(self, usual_prefix: int) -> NDArray[np.int32]:
        """What makes it an occurrence of its example, where prompts usually have so many tokens."""
        return identity(self.measured, self.prefix_tokens - usual_prefix)


class Cuts(NamedTuple):
    """Where a document is cut."""

    bounds: list[tuple[int, int]]
    """First token of each window, and the token after its last."""
    too_short: int
    """Stretches left out because they hold fewer than the minimum of tokens."""


def cut(tokens: int, *, window: int, stride: int, minimum: int) -> Cuts:
    """Cut a document of `tokens` tokens into windows.

    Windows start at 0, stride, 2 stride, ... up to the first that reaches the document's end: a
    later one would be wholly contained in it. Only that last one can be shorter than `window`; with
    fewer than `minimum` tokens it is left out. A stride above `window` leaves gaps.
    """
    count = 1 + max(0, -(-(tokens - window) // stride))
    # The bound at `tokens`: a gap may reach the end, and nothing is left for another window.
    starts = range(0, min(count * stride, max(tokens, 1)), stride)
    bounds = [(start, min(start + window, tokens)) for start in starts]
    kept = [(start, end) for start, end in bounds if end - start >= minimum]
    return Cuts(kept, len(bounds) - len(kept))


class Cutter:
    """Cuts batches of documents, counting what it gives and leaves out.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or a transformers tokenizer that holds one.
        window: tokens of a window at most.
        stride: tokens from one window's start to the next.
        tokens: of prefix and suffix, which a window has at least.
        heed: told of each document's token ids, int32 (tokens,).
        joint: where models have tokenizers of their own, finds where all of them can cut.

    """

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
        *,
        window: int,
        stride: int,
        tokens: ExampleTokens,
        heed: Callable[[NDArray[np.int32]], None] | None = None,
        joint: JointCutter | None = None,
    ) -> None:
        self._joint = joint
        self._heed = heed
        self._encoder = Encoder(tokenizer)
        self._window = window
        self._stride = stride
        self._tokens = tokens
        self.windows = 0
        """Windows given so far."""
        self.too_short = 0
        """Documents and tails left out so far."""
        self.no_boundary = 0
        """Windows left out because the tokenizers have no boundary near in common."""

    def cut(self, batch: list[Document], texts: Iterable[EncodedText] | None = None) -> Iterator[Window]:
        """Windows of the documents, in order.

        Args:
            batch: the documents.
            texts: their tokens, where they are encoded already.

        """
        if texts is None:
            texts = self._encoder.encode_batch([d.text for d in batch])
        for document, encoded in zip(batch, texts, strict=True):
            cuts = cut(len(encoded), window=self._window, stride=self._stride, minimum=self._tokens.least)
            self.windows += len(cuts.bounds)
            self.too_short += cuts.too_short
            ids = encoded.ids if cuts.bounds or self._heed else np.empty(0, dtype=np.int32)
            if self._heed is not None:
                self._heed(ids)
            windows = (
                Window(
                    document.id,
                    start,
                    document.text[slice(*encoded.span(start, end))],
                    ids[start:end],
                    *self._tokens[:2],
                )
                for start, end in cuts.bounds
            )
            yield from windows if self._joint is None else self._cut_jointly(self._joint, encoded, windows)

    def _cut_jointly(
        self, joint: JointCutter, encoded: EncodedText, windows: Iterator[Window]
    ) -> Iterator[Window]:
        """The windows of a document, cut at joint boundaries; those without any are left out."""
        places = boundaries(*encoded.places())
        while some := list(islice(windows, BATCH_DOCUMENTS)):
            own = [_relative(places, encoded, window) for window in some]
            cuts = joint.cut([window.text for window in some], own)
            for window, found in zip(some, cuts, strict=True):
                if found is None:
                    self.windows -= 1
                    self.no_boundary += 1
                else:
                    yield window._replace(**found._asdict())


def _relative(places: Places, encoded: EncodedText, window: Window) -> Places:
    """A document's boundaries as places in a window's text, see `JointCutter.cut`."""
    start, end = window.offset, window.offset + len(window.token_ids)
    first, _ = encoded.span(start, end)
    return np.where(places[start:end] < 0, -1, places[start:end] - first)


def batched(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents so that a batch is bounded in rows and in characters."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        if batch and (len(batch) == BATCH_DOCUMENTS or characters + len(document.text) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(document)
        characters += len(document.text)
    if batch:
        yield batch
