"""Where the words of a text are made apart, so that it may be encoded in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NEAR = frozenset(
    [
        # GPT-2
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        # Llama 3, and cl100k of GPT-4 in either spelling
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
        r"|\s+(?!\S)|\s+",
        # Qwen 2 and 3
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+",
        # o200k of GPT-4o and gpt-oss
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        # DeepSeek, and digits of StarCoder and others: one kind of character and what may stand before it
        r"[\r\n]",
        r"\s?\p{L}+",
        r"\s?\p{P}+",
        r"\p{N}",
        r"\p{N}{1,3}",
    ]
)
"""Regular expressions whose matches hold few changes between letters, digits, spaces and others."""
_CODES = 0x110000
"""How many characters Unicode has."""


class Joints:
    """Between which neighbours a tokenizer cannot make one token."""

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401
        content = json.loads(tokenizer.to_str())
        model = content["model"]
        self.far = not _NEAR.issuperset(_patterns([content["normalizer"], content["pre_tokenizer"]]))
        """Whether what stands anywhere in a text may decide how its words are made."""
        self._first = self._last = self._pairs = np.empty(0, dtype=np.int64)
        if (
            model.get("type") != "BPE"
            or model.get("continuing_subword_prefix")
            or model.get("end_of_word_suffix")
        ):
            return
        vocabulary: dict[str, int] = model["vocab"]
        self._first = np.full(max(tokenizer.get_vocab().values(), default=-1) + 1, -1, dtype=np.int64)
        self._last = self._first.copy()
        # One token can stand for several unknown characters, and a byte's token is not what is in the text.
        spelled = {token for token in vocabulary if token != model.get("unk_token") and not _is_byte(token)}
        for token in spelled - {""}:
            self._first[vocabulary[token]], self._last[vocabulary[token]] = ord(token[0]), ord(token[-1])
        inner = {pair for token in vocabulary for pair in pairwise(token)}
        self._pairs = np.array([ord(one) * _CODES + ord(two) for one, two in inner], dtype=np.int64)

    def parts(self, encoding: Any) -> NDArray[np.bool_]:  # noqa: ANN401
        """Which tokens are made apart from the one before: bool (tokens,)."""
        words = np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int64)
        apart = np.zeros(len(words), dtype=np.bool_)
        apart[1:] = words[1:] != words[:-1]
        if len(self._first) and len(words):
            ids = np.array(encoding.ids, dtype=np.int64)
            last, first = self._last[ids[:-1]], self._first[ids[1:]]
            known = (last >= 0) & (first >= 0)
            apart[1:] |= known & ~np.isin(last * _CODES + first, self._pairs)
        return apart


def _patterns(part: Any) -> Iterator[str]:  # noqa: ANN401 - a value of a JSON file
    """All regular expressions in a part of tokenizer.json."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from [value] if key == "Regex" and isinstance(value, str) else _patterns(value)
    elif isinstance(part, list):
        for value in part:
            yield from _patterns(value)


def _is_byte(token: str) -> bool:
    return len(token) == len("<0x00>") and token.startswith("<0x") and token.endswith(">")
