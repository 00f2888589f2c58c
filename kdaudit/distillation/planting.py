"""Canaries among the windows of a training corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from kdaudit.config.distill import DistillConfig
from kdaudit.corpus import Document, ExampleTokens
from kdaudit.corpus.canaries import read_canaries
from kdaudit.corpus.windows import Cutter, Window
from kdaudit.errors import CorpusError
from kdaudit.models.tokenizer import ReadingCheck
from kdaudit.schemas.canaries import Canary

KEY = "canaries"


def planted_in(config: DistillConfig) -> list[Canary]:
    """What is mixed into the corpus: the canaries without their controls.

    Raises:
        CorpusError: their file is wrong.

    """
    if config.canaries is None:
        return []
    return [one for one in read_canaries(Path(config.canaries.path), KEY) if one.repetitions]


def planted(
    canaries: Sequence[Canary],
    tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
    window: int,
    tokens: ExampleTokens,
    reading_check: ReadingCheck | None,
) -> Iterator[Window]:
    """A window for each repetition of each canary: its first `window` tokens, as a document of its own.

    Raises:
        CorpusError: a canary has fewer tokens than an example.

    """
    cutter = Cutter(tokenizer, window=window, stride=window, tokens=tokens)
    for row, canary in enumerate(canaries):
        document = Document(canary.id, canary.text, row)
        if reading_check is not None:
            reading_check.look([document])
        first = next(cutter.cut([document]), None)
        if first is None:
            raise CorpusError(
                f"{canary.id} has fewer than {tokens.least} tokens (prefix + suffix)",
                fix=f"make canaries with `kdaudit canaries --tokens {tokens.least} --tokenizer PATH`",
                key=f"{KEY}.path",
            )
        yield from repeat(first, canary.repetitions)
