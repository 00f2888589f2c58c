"""What keeps a page harmless, and the public page free of private things.

Corpora hold hostile text. Escaping of markup is Jinja's; here invisible and reordering characters
become visible, over-long text is cut with the cut counted, and paths of the owner's machine are
taken down to their last part.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_KEPT = frozenset("\n\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
"""Line ends and tabs are laid out by the page; joiners belong to emoji and to several scripts."""
_SHOWN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_ESCAPED = {"&": 5, "<": 4, ">": 4, '"': 5, "'": 5}
"""Bytes of what autoescape writes for a character."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DATA_FILE = re.compile(r"\.(parquet|arrow|jsonl?|csv|txt)(\.(gz|xz|zst))?$", re.IGNORECASE)
_LOCAL_PATH = re.compile(r"(?<![\w/.])(?:file:/*|~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^\s'\"`,;:()<>|]*[\w.-])")


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


def public_corpus_name(path: str) -> str:
    """A hub id whole; of a local path or an address only the last part."""
    if _HUB_ID.fullmatch(path) and not _DATA_FILE.search(path):
        return path
    parts = [part for part in re.split(r"[/\\]+", path.partition("?")[0]) if part not in ("", ".", "..", "~")]
    return parts[-1] if parts else "local data"


def without_paths(text: str, known: str = "") -> str:
    """A note with every local path taken down to its last part; `known` is one that it may name."""
    if known:
        text = text.replace(known, public_corpus_name(known))
    return _LOCAL_PATH.sub(lambda found: public_corpus_name(found.group()), text)
