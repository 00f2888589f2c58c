"""Text of others on a page: invisible and reordering characters made visible, long text cut and counted.

Corpora hold hostile text. Jinja escapes markup; what markup does not cover is here.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

_KEPT = frozenset("\n\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
"""Line ends and tabs are laid out by the page; joiners belong to emoji and to several scripts."""
_SHOWN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_ESCAPED = {"&": 5, "<": 4, ">": 4, '"': 5, "'": 5}
"""Bytes of what autoescape writes for a character."""
_OPEN = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"
_CLOSE = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"


class Cut(NamedTuple):
    """A text, cut if it was too long."""

    text: str
    omitted: int
    """Characters left out."""


def visible(text: str) -> str:
    """The text with control, bidirectional and other invisible characters written out by code point."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _SHOWN_CATEGORIES:
        return character
    return f"{_OPEN}U+{ord(character):04X}{_CLOSE}"


def keep_head(text: str, limit: int) -> Cut:
    """The first `limit` characters."""
    return Cut(text[:limit], max(0, len(text) - limit))


def show_head(text: str, limit: int) -> Cut:
    """As much of a text's beginning as takes at most `limit` bytes of a page, made visible and escaped.

    No more than that is looked at: a line may hold megabytes.
    """
    shown = _fitting(text[:limit], limit)
    return Cut("".join(shown), len(text) - len(shown))


def show_tail(text: str, limit: int) -> Cut:
    """As much of a text's end as takes at most `limit` bytes of a page, made visible and escaped."""
    shown = _fitting(text[max(0, len(text) - limit) :][::-1], limit)
    return Cut("".join(reversed(shown)), len(text) - len(shown))


def _fitting(characters: str, limit: int) -> list[str]:
    shown: list[str] = []
    room = limit
    for character in characters:
        words = _shown(character)
        room -= _ESCAPED.get(words) or len(words.encode())
        if room < 0:
            break
        shown.append(words)
    return shown
