"""The leaked examples as the reports show them, worst first.

The public page's cards are made without the texts at hand: `text` is then None, and so is
`document_id` unless it may be named. Only the full report holds continuations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import NamedTuple

from kdaudit.analysis.leaks import Continuation, LeakText
from kdaudit.reporting.formatting import count, significant
from kdaudit.reporting.personal_data_counts import kind_words, tag_words
from kdaudit.reporting.shown_text import Cut, show_head, show_tail
from kdaudit.schemas.result import LeakClass
from kdaudit.schemas.results import Leak

TEXT_LIMIT = 600
"""Bytes of the page that a prefix or a suffix may take, or a continuation, escapes included, so that no text
can blow the page up: 200 leaks of an audit of up to seven models stay under 1 MB."""
_MANY = 1_000_000_000
"""Samples, of which no reader needs the number."""
_SAID, _LINE, _LEAST = 2250, 250, 80
"""Bytes for all that models say of a leak; what a line of it takes beside its text; the least for that."""

CLASS_WORDS: dict[LeakClass, str] = {
    "inherited": "inherited",
    "easy_core": "easy core",
    "with_baseline": "with baseline",
    "student_only": "student only",
    "unknown": "class unknown",
}


class StudentClass(NamedTuple):
    """How a student comes to memorize a leak."""

    student: str
    name: LeakClass
    word: str


class NearMiss(NamedTuple):
    """A model that departs from the text: what it reproduces, then how it continues."""

    model: str
    matched_tokens: int
    same: Cut
    other: Cut


class Queries(NamedTuple):
    """How many samples of a model it takes to have the suffix, on average."""

    model: str
    words: str


class QuotedText(NamedTuple):
    """A leak's text and the models' continuations."""

    offset: int
    prefix: Cut
    suffix: Cut
    near_misses: list[NearMiss]
    queries: list[Queries]
    """The fewest first; empty if sampling was not measured."""


class LeakCard(NamedTuple):
    """A leaked example."""

    rank: int
    example_id: int
    document_id: Cut | None
    classes: list[StudentClass]
    memorized_by: list[str]
    copies: int
    risk: float | None
    tags: list[str]
    """In words."""
    suffix_hmac: str
    text: QuotedText | None
    prefix_tokens: int | None = None
    """Of its prefix, or prompt; None where all examples have as many."""
    suffix_tokens: int | None = None
    accepted: bool = False
    """Whether the gate disregards it."""

    @property
    def inherited(self) -> bool:
        """Whether a student has it from the teacher alone."""
        return any(one.name == "inherited" for one in self.classes)


def public_cards(leaks: Sequence[Leak], *, document_ids: bool) -> list[LeakCard]:
    """Cards without any text and with only the kinds of tags."""
    cards = [_card(rank, leak, None, document_ids=document_ids) for rank, leak in enumerate(leaks, 1)]
    kinds = ([*dict.fromkeys(kind_words(tag) for tag in leak.tags)] for leak in leaks)
    return [card._replace(tags=words) for card, words in zip(cards, kinds, strict=True)]


def full_cards(leaks: Sequence[Leak], texts: Mapping[int, LeakText]) -> list[LeakCard]:
    """Cards with the text of each leak."""
    return [
        _card(rank, leak, _quoted(texts[leak.example_id], leak.memorized_by), document_ids=True)
        for rank, leak in enumerate(leaks, 1)
    ]


def _card(rank: int, leak: Leak, text: QuotedText | None, *, document_ids: bool) -> LeakCard:
    return LeakCard(
        rank,
        leak.example_id,
        show_head(leak.document_id, 200) if document_ids else None,
        [StudentClass(student, name, CLASS_WORDS[name]) for student, name in leak.classes.items()],
        leak.memorized_by,
        leak.copies,
        leak.risk,
        [tag_words(tag) for tag in leak.tags],
        leak.suffix_hmac,
        text,
        leak.prefix_tokens,
        leak.suffix_tokens,
        leak.accepted,
    )


def _quoted(text: LeakText, memorized_by: Collection[str]) -> QuotedText:
    others = [one for one in text.models if one.name not in memorized_by]
    room = min(TEXT_LIMIT, max(_LEAST, _SAID // max(1, len(others)) - _LINE))
    misses = [_near_miss(one, text.suffix, room // 2) for one in others]
    misses.sort(key=lambda miss: -miss.matched_tokens)
    return QuotedText(
        text.offset,
        show_tail(text.prefix, TEXT_LIMIT),
        show_head(text.suffix, TEXT_LIMIT),
        misses,
        _queries(text.models),
    )


def _queries(models: Sequence[Continuation]) -> list[Queries]:
    known = [(one.expected_queries, one.name) for one in models if one.expected_queries is not None]
    return [Queries(name, _queries_words(number)) for number, name in sorted(known, key=lambda one: one[0])]


def _queries_words(number: float) -> str:
    if number == inf:
        return "never"
    return significant(number, 2) if number < _MANY else f"over {count(_MANY)}"


def _near_miss(continuation: Continuation, suffix: str, limit: int) -> NearMiss:
    """Split a continuation where its characters leave the suffix.

    The tokens' own texts are not in leaks.parquet. The first wrong token may share its first
    characters with the right one, so the mark can run a few characters past the last right token.
    """
    length = _shared_length(continuation.continuation, suffix) if continuation.matched_tokens else 0
    same = show_tail(continuation.continuation[:length], limit)
    return NearMiss(
        continuation.name,
        continuation.matched_tokens,
        same,
        show_head(continuation.continuation[length:], limit),
    )


def _shared_length(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((k for k, (left, right) in pairs if left != right), min(len(one), len(other)))
