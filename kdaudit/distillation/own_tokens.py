"""Texts in the tokens of a tokenizer of a student's own: windows that it can read, and what was cut."""

from __future__ import annotations

from collections.abc import Sequence

from kdaudit.inference.base import Tokens
from kdaudit.models.tokenizer import Encoder, ModelTokenizer


class OwnWindows:
    """Cuts texts into windows of a tokenizer, and counts those that had to be parted.

    Args:
        tokenizer: the student's.
        most: tokens of a window at most; None for any.

    """

    def __init__(self, tokenizer: ModelTokenizer, most: int | None) -> None:
        self._encoder = Encoder(tokenizer)
        self._most = most
        self._texts = 0
        self._parted = 0
        self._longest = 0

    def cut(self, texts: Sequence[str]) -> list[Tokens]:
        """Texts as windows: int32 (tokens,) each.

        A text that has more than `most` tokens becomes several. A window of one token has nothing to learn,
        and is left out.
        """
        found = [encoded.ids for encoded in self._encoder.encode_batch(texts)]
        for ids in found:
            self._texts += 1
            self._longest = max(self._longest, len(ids))
            self._parted += self._most is not None and len(ids) > self._most
        return [
            ids[start : start + (self._most or len(ids))]
            for ids in found
            for start in range(0, len(ids), self._most or max(len(ids), 1))
            if len(ids) - start > 1
        ]

    def warning(self, student: str, texts: str, window: str) -> str | None:
        """What to know of texts that became several windows; None where none did.

        Args:
            student: whose tokenizer it is.
            texts: what was cut, in words.
            window: the key of the setting that says how long such texts are.

        """
        if not self._parted:
            return None
        return (
            f"{student}: by its own tokenizer {self._parted:,} of {self._texts:,} {texts} have more than the "
            f"{self._most:,} tokens that it can read (the longest has {self._longest:,}): it reads them in "
            "parts. An audit refuses a student that cannot read a window whole; raise the context length of "
            f"student.base, or lower {window}"
        )
