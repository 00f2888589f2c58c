"""Telling an encoding from bytes: UTF-16 and UTF-32 by where their NULs stand, older ones by what they spell.

What is told is a name for a message; no text is ever read in an encoding that was guessed.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

BOM = codecs.BOM_UTF8

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_CONTROLS = bytes(sorted({*range(32)} - {*b"\n\r"}))
"""Every second byte of alphabetic text in UTF-16 is one of these, the number of its script."""
_BLANKS = b"\t\v\f"
"""Of these, what UTF-8 text may be full of too."""
_CLEAR = 0.8
"""Share of characters that must fit for an encoding to be named."""
_SAMPLE = 4096
_FEWEST = 8
"""Letters of a text that is told by the numbers of their scripts."""


def wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, with a byte order mark or without, if a text begins as one of them; else None."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    body = head[:_SAMPLE].rstrip(b"\0")  # NULs behind a text are padding, but for half a last letter
    body += b"\0" * (len(body) % 2)
    nuls = [body[place::4].count(0) for place in range(4)]
    quads, pairs = len(body) // 4, len(body) // 2
    if quads and (min(nuls[2:]) > 0.8 * quads > 8 * nuls[0] or min(nuls[:2]) > 0.8 * quads > 8 * nuls[3]):
        return "UTF-32"
    few, many = sorted(_controls(half) for half in (body[::2], body[1::2]))
    if many > 1 and 2 * many > pairs and many >= 8 * few and _controls(body.translate(None, _BLANKS)):
        return "UTF-16"
    if _halves_are_numbers(body[::2], body[1::2]) or _halves_are_numbers(body[1::2], body[::2]):
        return "UTF-16"
    if not _is_utf8(body) and any(_is_east_asian(body, codec) for codec in ("utf-16-le", "utf-16-be")):
        return "UTF-16"
    return None


def _halves_are_numbers(high: bytes, low: bytes) -> bool:
    """Whether nearly every second byte is the number of a script, or 0 for a blank or an ASCII letter.

    Of scripts such as Thai and Devanagari many letters have small numbers within it, too; and the number of
    Devanagari is that of a tab, so there must be blanks.
    """
    small = bytes(range(32))
    numbers, letters = (len(half) - len(half.translate(None, small)) for half in (high, low))
    return 0 in high and len(high) >= _FEWEST and numbers > 0.95 * len(high) and letters < 0.75 * len(low)


def _controls(text: bytes) -> int:
    return len(text) - len(text.translate(None, _CONTROLS))


def _is_utf8(text: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def _is_east_asian(body: bytes, codec: str) -> bool:
    text = body[: len(body) // 2 * 2].decode(codec, "replace")
    fits = sum(
        one.isascii() or any(common(one) for common in (_KANA, _KANJI, _HANZI, _HANGUL)) for one in text
    )
    return len(text) > 1 and fits > 0.9 * len(text)


Common = Callable[[str], bool]
"""Whether a character that is not ASCII is one of which text of some language mostly consists."""


def _between(*ranges: tuple[int, int]) -> Common:
    return lambda character: any(low <= ord(character) <= high for low, high in ranges)


def _listed_early(codec: str, last: int) -> Common:
    """Common characters stand first in the national standards: up to some first byte."""
    return lambda character: 0xA1 <= character.encode(codec, "ignore").ljust(1, b"\0")[0] <= last


_HANZI = _listed_early("gb2312", 0xD7)
_HANGUL = _listed_early("euc_kr", 0xC8)
_KANA = _between((0x3001, 0x3002), (0x3040, 0x30FF))
_KANJI = _listed_early("euc_jp", 0xCF)
_CYRILLIC = _between((0x401, 0x401), (0x410, 0x44F), (0x451, 0x451), (0x2010, 0x201E), (0xAB, 0xBB))
_GREEK = _between((0x384, 0x3CE), (0x2010, 0x201E), (0xAB, 0xBB))
_HEBREW = _between((0x5D0, 0x5EA), (0x2010, 0x201E))
_ARABIC = _between((0x600, 0x6FF), (0x2010, 0x201E), (0xAB, 0xBB))
_WESTERN = _between((0xA0, 0xBB), (0xBF, 0xD6), (0xD8, 0xF6), (0xF8, 0xFF), (0x152, 0x153), (0x2010, 0x2026))
_CENTRAL = _between((0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0xFF), (0x102, 0x17E), (0x2010, 0x2026), (0xAB, 0xBB))
_CANDIDATES: tuple[tuple[str, str, Common], ...] = (
    ("cp932", "Shift JIS", _KANJI),
    ("euc_jp", "EUC-JP", _KANJI),
    ("cp949", "EUC-KR", _HANGUL),
    ("gb18030", "GB 18030 (GBK)", _HANZI),
    ("big5", "Big5", _listed_early("big5", 0xC6)),
    ("cp1255", "Windows-1255 (Hebrew)", _HEBREW),
    ("cp1251", "Windows-1251", _CYRILLIC),
    ("koi8-r", "KOI8-R", _CYRILLIC),
    ("cp1253", "Windows-1253 (Greek)", _GREEK),
    ("cp1256", "Windows-1256 (Arabic)", _ARABIC),
    ("cp1252", "Windows-1252 or Latin-1 (ISO 8859-1)", _WESTERN),
    ("cp1250", "Windows-1250 (Central European)", _CENTRAL),
    ("mac-roman", "Mac Roman", _WESTERN),
    ("cp850", "code page 850 (DOS)", _WESTERN),
)
"""Codec, name and what text in it consists of; of those that fit equally well the first is taken."""


def likely_encoding(rows: Sequence[bytes]) -> str | None:
    """The name of what text that is not UTF-8 is most likely encoded in; None if it looks like none known.

    Args:
        rows: some of it.
    """
    wide = Counter(map(wide_encoding, rows)).most_common(1)
    if wide and wide[0][0] is not None:
        return wide[0][0]
    sample = b"\n".join(rows)
    fits = [_fit(sample[:_SAMPLE], codec, common) for codec, _, common in _CANDIDATES]
    best = max(fits)
    return _CANDIDATES[fits.index(best)][1] if best > _CLEAR else None


def _fit(sample: bytes, codec: str, common: Common) -> float:
    """Share of the characters that are not ASCII which are common and stand well; 0 if there are none."""
    text = sample.decode(codec, "replace")
    others = [place for place, character in enumerate(text) if not character.isascii()]
    if not others or (common is _KANJI and 10 * sum(_KANA(text[place]) for place in others) < len(others)):
        return 0.0  # no Japanese is without its syllables
    return sum(common(text[place]) and _stands_well(text, place) for place in others) / len(others)


def _stands_well(text: str, place: int) -> bool:
    """Whether a letter stands beside letters of its own script, and no capital behind a small one.

    Another sign does not stand within a word of Latin letters, but for apostrophes and hyphens.
    """
    here, beside = text[place], text[max(place - 1, 0) : place + 2]
    if not here.isalpha():
        return here in "\u2019\u2010\u2011\u2013\u2014" or not (
            _is_latin(beside[0]) and _is_latin(beside[-1])
        )
    if any(other.isalpha() and _is_latin(other) != _is_latin(here) for other in beside):
        return False
    return not (here.isupper() and beside[0].islower())


def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("LATIN")
