"""How well a text compresses: the feature that separates memorized text best."""

from __future__ import annotations

import math
import zlib

_LEVEL = 9


def zlib_entropy(text: str) -> float:
    """Size of the text's zlib stream, in bits per byte of the text.

    8 * len(zlib.compress(utf8, 9)) / len(utf8), where utf8 is the text in UTF-8. The stream's 2 bytes of
    header and 4 of checksum count, so a short text can have more than 8 bits per byte. For an empty
    text the ratio is undefined: NaN.
    """
    utf8 = text.encode()
    return 8 * len(zlib.compress(utf8, _LEVEL)) / len(utf8) if utf8 else math.nan
