"""Whether all models can read every text of a corpus, and as the same tokens as the first model does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from kdaudit.errors import ModelError
from kdaudit.models.tokenizer.encoder import Encoder
from kdaudit.models.tokenizer.loading import ModelTokenizer
from kdaudit.models.tokenizer.reading import Alike

_ENOUGH = 20
"""Differing documents after which reading on would not say more."""
_SHOWN = 5


class Text(Protocol):
    """A document; `kdaudit.corpus.Document` is one."""

    @property
    def text(self) -> str:
        """Its text."""
        ...

    @property
    def row(self) -> int:
        """Number of its row in the corpus, from 0."""
        ...


class Other(NamedTuple):
    """A model whose tokenizer differs from the first one's."""

    tokenizer: ModelTokenizer
    alike: Alike
    """What is known of the two."""


class ReadingCheck:
    """Compares readings while a corpus is read.

    Args:
        key: where the corpus stands in the configuration, for messages.
        first: name of the model whose tokenizer cuts the corpus.
        tokenizer: that tokenizer.
        others: models with other tokenizers, by name.
        rowless: added tokens that a model has no row for in its embeddings, by the model's name.

    """

    def __init__(
        self,
        key: str,
        first: str,
        tokenizer: ModelTokenizer,
        others: Mapping[str, Other],
        rowless: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._key = key
        self._rowless = rowless or {}
        self._first = first
        self._encoder = Encoder(tokenizer)
        self._others = {name: other for name, other in others.items() if other.alike.literals != ()}
        self._encoders = {name: Encoder(other.tokenizer) for name, other in self._others.items()}
        self._differing: dict[str, list[int]] = {}

    def look(self, documents: Sequence[Text]) -> None:
        """Read documents with all tokenizers.

        Raises:
            ModelError: many documents have been read differently, or a model has no row for a token of one.

        """
        for name, literals in self._rowless.items():
            for document in documents:
                self._check_rows(document, name, literals)
        for name, other in self._others.items():
            for document in documents:
                if self._differs(document.text, name, other):
                    rows = self._differing.setdefault(name, [])
                    rows.append(document.row)
                    if len(rows) >= _ENOUGH:
                        raise self._error(name, f"at least {_ENOUGH}")

    def finish(self) -> None:
        """Check that no document was read differently.

        Raises:
            ModelError: some were; it names model and rows.

        """
        for name, rows in self._differing.items():
            raise self._error(name, str(len(rows)))

    def _check_rows(self, document: Text, name: str, literals: Sequence[str]) -> None:
        held = next((literal for literal in literals if literal in document.text), None)
        if held is not None:
            raise ModelError(
                f"row {document.row + 1}, counted from 1, holds {held!r}, an added token that {name} "
                "has no row for in its embeddings",
                fix="leave that row out, or save the model after "
                "model.resize_token_embeddings(len(tokenizer))",
                key=f"{self._key}.path",
            )

    def _differs(self, text: str, name: str, other: Other) -> bool:
        literals = other.alike.literals
        if literals is not None and not any(literal in text for literal in literals):
            return False
        first, second = (encoder.encode(text).ids for encoder in (self._encoder, self._encoders[name]))
        return not np.array_equal(first, second)

    def _error(self, name: str, count: str) -> ModelError:
        rows = self._differing[name]
        listed = ", ".join(str(row + 1) for row in rows[:_SHOWN]) + (", ..." if len(rows) > _SHOWN else "")
        literals = self._others[name].alike.literals
        held = "" if literals is None else f" (they hold {' or '.join(map(repr, literals[:_SHOWN]))})"
        return ModelError(
            f"{count} documents{held} are read as other tokens by {name} than by {self._first}, "
            "whose tokenizer differs; "
            f"rows {listed}, counted from 1",
            fix=f"leave those rows out, or in an audit set match_by: text for {name}",
            key=f"{self._key}.path",
        )
