"""Tokenizers of a family: all models read text as the same tokens, with one tokenizer or each its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kdaudit.config.distill import DistillConfig
from kdaudit.config.students import BpeConfig
from kdaudit.corpus import open_documents
from kdaudit.distillation.bases import Base
from kdaudit.distillation.families import train_bpe
from kdaudit.errors import ModelError
from kdaudit.models.fetching import fetch_tokenizer
from kdaudit.models.resolving import read_tokenizer
from kdaudit.models.tokenizer import (
    Alike,
    ModelTokenizer,
    Other,
    ReadingCheck,
    bos_token_id,
    compare_readings,
    load_tokenizer,
    reader_of,
    reading_fingerprint,
    uses_bos,
)


class Readers(NamedTuple):
    """The tokenizers of a family; every model reads the corpus as the same tokens."""

    tokenizer: ModelTokenizer
    """Tokenizes the corpus: the one that is trained or named, else the teacher's."""
    own: Mapping[str, ModelTokenizer]
    """The tokenizer that each model is saved with, by the key of its base."""
    others: Mapping[str, Other]
    """Those that differ from `tokenizer`, by the same key."""

    @property
    def bos(self) -> int | None:
        """BOS token before each window, if the tokenizers themselves add one."""
        return bos_of(self.tokenizer)

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a message: all that stand for no text."""
        return tuple(sorted(self.tokenizer.vocabulary[text] for text in self.tokenizer.special_texts))

    @property
    def vocabulary(self) -> int:
        """Columns of all models' logits that stand for tokens."""
        return min(len(one) for one in (self.tokenizer, *self.own.values()))

    def reading_check(self, key: str) -> ReadingCheck:
        """A check, while the corpus under `key` is read, that all models read it as the same tokens."""
        return ReadingCheck(key, "the tokenizer", self.tokenizer, self.others)


def family_readers(config: DistillConfig, bases: Mapping[str, Base]) -> Readers:
    """The tokenizer of the family, trained on the corpus, named, or the models' own, and the models' own.

    Raises:
        ModelError: the models read text differently, or a tokenizer cannot be loaded.

    """
    if config.tokenizer is not None:
        return readers_of(_made(config.tokenizer, config, "tokenizer"), bases, named=True)
    first = next(base.model for base in bases.values() if base.model is not None)
    return readers_of(read_tokenizer(first), bases, named=False)


def own_readers(config: DistillConfig, base: Base) -> dict[str, ModelTokenizer]:
    """The tokenizers of students that have one of their own, by the student's name.

    Args:
        config: the family.
        base: what students start from: a configuration.

    Raises:
        ModelError: one cannot be loaded or trained, no model with it can be audited, or the base has too few
            rows for it.

    """
    found = {}
    for key, wanted in config.own_tokenizers().items():
        tokenizer = _made(wanted, config, key)
        check_own(tokenizer, key)
        rows = (base.config or {}).get("vocab_size", len(tokenizer))
        if rows < len(tokenizer):
            raise ModelError(
                f"{rows:,} is less than the {len(tokenizer):,} tokens of {key}",
                fix="remove it to use each tokenizer's length",
                key=f"{base.key}.vocab_size",
            )
        found[config.students[int(key.split(".")[1])].name] = tokenizer
    return found


def check_own(tokenizer: ModelTokenizer, key: str) -> None:
    """Refuse a tokenizer with which a student could not be audited, which is by the text that it writes.

    Raises:
        ModelError: its tokens cannot be mapped to text.

    """
    try:
        reader_of(tokenizer)
    except ModelError as error:
        error.key = key
        raise


def _made(wanted: str | BpeConfig, config: DistillConfig, key: str) -> ModelTokenizer:
    """A tokenizer that a configuration names, or one that is trained on the corpus."""
    if isinstance(wanted, BpeConfig):
        texts = (document.text for document in open_documents(config.corpus))
        return train_bpe(texts, wanted.train_bpe)
    try:
        return load_tokenizer(fetch_tokenizer(wanted, key))
    except ModelError as error:
        error.key = error.key or key
        raise


def readers_of(tokenizer: ModelTokenizer, bases: Mapping[str, Base], *, named: bool) -> Readers:
    """The readers of a family with this tokenizer, after a check of models that have their own.

    Args:
        tokenizer: the family's.
        bases: what the models start from, by key.
        named: whether distill.yaml names it, so that models are saved with it and not with their own.

    Raises:
        ModelError: a model reads text differently.

    """
    own = dict.fromkeys(bases, tokenizer)
    others = {}
    fingerprint = reading_fingerprint(tokenizer)
    for key, base in bases.items():
        if base.model is None or base.model.tokenizer_fingerprint == fingerprint:
            continue
        other = read_tokenizer(base.model)
        others[key] = Other(other, _alike(tokenizer, other, key, named=named))
        if not named:
            own[key] = other
    return Readers(tokenizer, own, others)


def _alike(one: ModelTokenizer, two: ModelTokenizer, key: str, *, named: bool) -> Alike:
    """How two tokenizers that can be distilled with are alike."""
    alike = compare_readings(one, two)
    if alike is not None and bos_of(one) == bos_of(two):
        return alike
    what = "reads text differently from" if alike is None else "puts another BOS token before a text than"
    if named:
        raise ModelError(f"{what} {key}", fix="remove it, or name that model's own", key="tokenizer")
    raise ModelError(
        f"its tokenizer {what} the teacher's, and distillation needs models that read the same tokens",
        fix="name models of one family",
        key=key,
    )


def bos_of(tokenizer: ModelTokenizer) -> int | None:
    """The BOS token that a tokenizer itself adds before a text."""
    return bos_token_id(tokenizer) if uses_bos(tokenizer) else None
