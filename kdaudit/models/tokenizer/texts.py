"""Text as a model with a tokenizer of its own reads it, and where several tokenizers can cut it alike.

A text may be cut behind a token if every token before ends, and every token behind begins, on that side of
the cut: not inside a character whose bytes are several tokens, nor inside a word that is one. A joint
boundary is a place where all tokenizers may cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.models.tokenizer.encoder import plain_tokenizer
from kdaudit.models.tokenizer.loading import ModelTokenizer
from kdaudit.models.tokenizer.pieces import Pieces, pieces_of, unknown_id, written
from kdaudit.models.tokenizer.probe import PROBE

Places = NDArray[np.int64]


@lru_cache(maxsize=8)
def reader_of(tokenizer: ModelTokenizer) -> TextReader:
    """The reader of a tokenizer, made once.

    Raises:
        ModelError: the tokenizer cannot say what each token writes.

    """
    return TextReader(tokenizer)


class Spans(NamedTuple):
    """A text's tokens and the characters that they stand for."""

    ids: NDArray[np.int32]
    """int32 (tokens,)"""
    starts: Places
    """First character of each: int64 (tokens,)."""
    ends: Places
    """The one after its last: int64 (tokens,)."""

    @classmethod
    def of(cls, ids: Sequence[int], offsets: Sequence[tuple[int, int]], shift: int = 0) -> Self:
        """From what `tokenizers` gives for a text without its first `shift` characters."""
        places = np.array(offsets, dtype=np.int64).reshape(-1, 2) + shift
        return cls(np.array(ids, dtype=np.int32), places[:, 0], places[:, 1])

    def tokens_before(self, character: int) -> int | None:
        """How many tokens stand before a place in the text; None where it may not be cut, or none does."""
        count = int(np.searchsorted(np.maximum.accumulate(self.ends), character, side="right"))
        return count if count and (self.starts[count:] >= character).all() else None


def boundaries(starts: NDArray[Any], ends: NDArray[Any]) -> Places:
    """Behind which character a text may be cut behind each token, -1 where it may not: int64 (tokens,).

    Args:
        starts: first character of each token: (tokens,).
        ends: the one after its last.

    """
    if not len(ends):
        return np.empty(0, np.int64)
    before = np.maximum.accumulate(ends).astype(np.int64)
    after = np.minimum.accumulate(starts[::-1])[::-1]
    return np.where(np.append(before[:-1] <= after[1:], True), before, -1)


class TextExample(NamedTuple):
    """An example as one model reads it."""

    prompt: NDArray[np.int32]
    """int32 (tokens,), without a BOS token."""
    target: NDArray[np.int32]
    """The tokens that its tokenizer makes of the target: int32 (tokens,). Others may write the same text."""
    text: bytes
    """What a continuation has to begin with: the target's text, as the tokenizer writes it (normalized)."""


class TextReader:
    """Reads texts with one model's own tokenizer.

    Where the tokenizer itself adds a space before a text, as SentencePiece does, one that stands there
    already is left to it: both together would be two.

    Args:
        tokenizer: the model's.

    Raises:
        ModelError: it cannot say what each token writes.

    """

    def __init__(self, tokenizer: ModelTokenizer) -> None:
        self.pieces: Pieces = pieces_of(tokenizer)
        self._tokenizer = plain_tokenizer(tokenizer)
        self._own = tokenizer

    def read(self, texts: Sequence[str]) -> Iterator[Spans]:
        """The tokens of each text, without special tokens that the tokenizer would add."""
        shifts = [int(self._adds_space and text.startswith(" ")) for text in texts]
        given = [text[shift:] for text, shift in zip(texts, shifts, strict=True)]
        for encoding, shift in zip(
            self._tokenizer.encode_batch(given, add_special_tokens=False), shifts, strict=True
        ):
            yield Spans.of(encoding.ids, encoding.offsets, shift)

    def example(self, text: str, spans: Spans, prompt_end: int, target_end: int) -> TextExample:
        """An example of a text, cut at joint boundaries.

        Args:
            text: prompt, target, and what follows them.
            spans: its tokens.
            prompt_end: characters of the prompt.
            target_end: characters of prompt and target.

        """
        first, last = (spans.tokens_before(place) for place in (prompt_end, target_end))
        if first is None or last is None:
            raise ValueError(f"{prompt_end} and {target_end} are no boundaries of this tokenizer")
        target = spans.ids[first:last]
        if self._unknown is not None and self._unknown in target:  # which no continuation can write
            return TextExample(spans.ids[:first], target, text[prompt_end:target_end].encode())
        return TextExample(spans.ids[:first], target, written(self.pieces, target.tolist()))

    def write(self, ids: Sequence[int]) -> str:
        """The text of a continuation."""
        return written(self.pieces, ids).decode("utf-8", "replace")

    @cached_property
    def bytes_of(self) -> NDArray[np.int64]:
        """Bytes that each token writes, by its id: int64 (vocabulary,)."""
        return np.array([len(piece or b"") for piece in self.pieces], dtype=np.int64)

    @cached_property
    def changed(self) -> list[str]:
        """Texts of the probe that its normalizer, or an unknown character, makes others of."""
        texts = [*PROBE]
        return [
            text
            for text, spans in zip(texts, self.read(texts), strict=True)
            if written(self.pieces, spans.ids.tolist()).removeprefix(b" ") != text.encode()
        ]

    @cached_property
    def _unknown(self) -> int | None:
        return unknown_id(self._own)

    @cached_property
    def _adds_space(self) -> bool:
        ids = self._tokenizer.encode("a", add_special_tokens=False).ids
        return written(self.pieces, ids) == b" a"
