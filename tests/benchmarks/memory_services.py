"""What stands in the place of models where the memory benchmark generates the extraction.

They run in workers as the real services do, so that all the parent does is real. A hash of the suffix
decides what is memorized: models then agree, as models that were trained on the same text do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import EngineInfo, Loaded
from kdaudit.inference.examples import Lengths, Ragged, lengths_of
from kdaudit.inference.scoring import PairScores
from kdaudit.inference.service import EngineService

_MEMORIZED = {
    "teacher": (0.000, 0.010),
    "baseline": (0.007, 0.012),
    "soft": (0.006, 0.009),
    "hard": (0.005, 0.009),
}
"""Where an example's hash, 0 to 1, must lie for a model to memorize it: 1%, 0.5%, 0.3% and 0.4%."""
_MOST_LEAK = {"teacher": (0.0, 0.8), "baseline": (0.4, 0.9), "soft": (0.1, 0.95), "hard": (0.045, 0.9)}
"""The same where the environment asks that students memorize ten of eleven examples."""


class GeneratedEngine(EngineService):
    """Runs tasks on what stands for an engine."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._engine = _Generated(options)


class _Generated:
    """Matched tokens and continuations without a model."""

    def __init__(self, options: dict[str, Any]) -> None:
        shares = _MOST_LEAK if "KDAUDIT_MOST_LEAK" in os.environ else _MEMORIZED
        self._low, self._high = shares[Path(options["path"]).name]

    def describe(self) -> Loaded:
        """See `Engine.describe`."""
        return Loaded(EngineInfo("generated", "1", "none", "float32"), 256)

    def match(self, _: Ragged, targets: Ragged) -> NDArray[np.int16]:
        """Most examples are left within a few tokens."""
        suffixes = targets.matrix()
        width = suffixes.shape[1]
        share = _shares(suffixes)
        few = np.minimum(-2 * np.log2(1 - share), width - 1).astype(np.int16)
        return np.where((share >= self._low) & (share < self._high), np.int16(width), few)

    def generate(self, prompts: Ragged, tokens: int | Lengths, *_: float) -> Ragged:
        """Random words."""
        random = np.random.default_rng(0)
        return Ragged.of(random.integers(2, 300, length) for length in lengths_of(tokens, len(prompts)))


class GeneratedFeatures:
    """A perplexity of e for every model."""

    def __init__(self, _: dict[str, Any]) -> None:
        pass

    def describe(self) -> str:
        """As `kdaudit.inference.scoring.FeatureService`."""
        return "none"

    def log_likelihood(
        self, _: NDArray[np.int32], ends: NDArray[np.int64], *, bos: int | None
    ) -> NDArray[np.float64]:
        """-1 a token."""
        return -(np.diff(ends, prepend=0) - 1.0)

    def entropy(
        self, _: NDArray[np.int32], ends: NDArray[np.int64], *, bos: int | None, vocabulary: int
    ) -> list[NDArray[np.float64]]:
        """1 nat, and -1 a token."""
        return [np.ones(len(ends)), -np.ones(len(ends))]

    def nearness(
        self, _: NDArray[np.int32], ends: NDArray[np.int64], targets: NDArray[np.int64], *, vocabulary: int
    ) -> list[NDArray[Any]]:
        """Half of each target is wrong, at 2 nats a token."""
        return [targets // 2, np.full(len(ends), -2.0)]


class GeneratedPair:
    """Features without models: lower where `GeneratedEngine` memorizes."""

    def __init__(self, _: dict[str, Any]) -> None:
        pass

    def describe(self) -> None:
        """As `kdaudit.inference.scoring.pair.PairService`."""

    def load(self, **_: Any) -> dict[str, str]:
        """Nothing to load."""
        return {"engine": "generated", "version": "1", "device": "none", "dtype": "float32"}

    def scores(
        self,
        flat: NDArray[np.int32],
        ends: NDArray[np.int64],
        prompts: NDArray[np.int64],
        targets: NDArray[np.int64],
    ) -> list[NDArray[Any]]:
        """As `kdaudit.inference.scoring.PairScores`."""
        starts = np.concatenate([[0], ends[:-1]]) + prompts
        share = _shares(flat[starts[:, None] + np.arange(targets[0])])
        likely = 1.0 + (share > 0.012) + share
        scales = {"baseline_nll": 1.1, "kl_divergence": 0.3, "suffix_kl_divergence": 0.3}
        return [
            np.zeros(len(ends), np.int16)
            if name.endswith("matched")
            else likely * scales.get(name, 0.9) + 0.01 * number * share**number
            for number, name in enumerate(PairScores._fields)
        ]


def _shares(rows: NDArray[np.int32]) -> NDArray[np.float64]:
    """A number in [0, 1) for each row, by its content alone."""
    odd = np.random.default_rng(5).integers(0, 2**63, rows.shape[1], dtype=np.uint64) * np.uint64(2)
    mixed = rows.astype(np.uint64) @ (odd + np.uint64(1))
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    shares: NDArray[np.float64] = (mixed >> np.uint64(11)) / 2.0**53
    return shares
