"""Leaks by what they seem to hold: counts of tags, which name nobody and may be shown on a public page."""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.schemas.results import AuditResults

_WORDS = {
    "bank_account": "bank account number (IBAN)",
    "email": "e-mail address",
    "ip_address": "IP address",
    "national_id": "national id number",
    "payment_card": "payment card number",
    "phone": "phone number",
    "secret": "key or token",
}


class TagCount(NamedTuple):
    """Leaks with one tag."""

    words: str
    leaks: int
    inherited: int
    """Those of them that a student has from the teacher alone."""


class Tagged(NamedTuple):
    """Leaks with any tag, and by tag."""

    leaks: int
    by_tag: list[TagCount]
    """The most frequent first."""


def tag_words(tag: str) -> str:
    """A tag in plain words; a tag without such words is shown as it is."""
    return _WORDS.get(tag, tag.replace("_", " "))


def kind_words(tag: str) -> str:
    """A tag as a public page may show it: a known kind, or `something else`."""
    return _WORDS.get(tag, "something else")


def count_tags(results: AuditResults) -> Tagged:
    """Count all leaks, shown or not; tags that are not ours are counted without being named."""
    found = leak_counts_of(results)
    counts = [TagCount(kind_words(tag), one.leaks, one.inherited) for tag, one in found.tags.items()]
    counts.sort(key=lambda count: (-count.leaks, count.words))
    return Tagged(found.tagged, counts)
