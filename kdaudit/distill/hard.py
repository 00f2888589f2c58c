"""Hard (sequence-level) distillation: the student learns text that the teacher wrote.

The teacher continues the prefix of each training window by greedy decoding, up to the window's own
length, so that a hard student reads as many tokens as the others, in the same order of windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kdaudit.engines.base import Tokens


class Continues(Protocol):
    """The one thing asked of an inference engine here; `kdaudit.engines.base.Engine` does it."""

    def generate(self, prefixes: Tokens, tokens: int) -> Tokens:
        """Greedy continuation of each prefix: int32 (rows, prefix tokens) to (rows, tokens)."""
        ...


def hard_windows(windows: Sequence[Tokens], prefix_tokens: int, teacher: Continues) -> list[Tokens]:
    """Each window's prefix with the teacher's continuation, as long as the window itself.

    Args:
        windows: int32 (tokens,) each, longer than the prefix.
        prefix_tokens: tokens that are kept of each window.
        teacher: an engine that has the teacher loaded.

    Returns:
        Row i comes from window i: int32, of the window's length.
    """
    prefixes = np.stack([window[:prefix_tokens] for window in windows]).astype(np.int32)
    longest = max(len(window) for window in windows)
    written = teacher.generate(prefixes, longest - prefix_tokens)
    whole = np.concatenate([prefixes, written], axis=1)
    return [row[: len(window)] for row, window in zip(whole, windows, strict=True)]
