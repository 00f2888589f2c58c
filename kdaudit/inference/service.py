"""An engine in its worker process: rows of any length travel as pairs of arrays."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import Engine, Loaded
from kdaudit.inference.examples import Lengths, Ragged, Tokens

_ENGINES = {
    "vllm": "kdaudit.inference.vllm:VllmEngine",
    "transformers": "kdaudit.inference.transformers:TransformersEngine",
}


class EngineService:
    """Runs in the worker: one model.

    Args:
        options: the fields of `EngineOptions`.

    """

    def __init__(self, options: dict[str, Any]) -> None:
        module, _, name = _ENGINES[options["engine"]].partition(":")
        self._engine: Engine = getattr(importlib.import_module(module), name)(options)

    def describe(self) -> Loaded:
        """See `Engine.describe`."""
        return self._engine.describe()

    def match(
        self, prompts: Tokens, prompt_offsets: Lengths, targets: Tokens, target_offsets: Lengths
    ) -> NDArray[np.int16]:
        """See `Engine.match`; for the arguments see `Ragged`."""
        return self._engine.match(Ragged(prompts, prompt_offsets), Ragged(targets, target_offsets))

    def generate(
        self, prompts: Tokens, offsets: Lengths, tokens: Lengths, *, temperature: float, seed: int
    ) -> tuple[Tokens, Lengths]:
        """See `Engine.generate`."""
        written = self._engine.generate(Ragged(prompts, offsets), tokens, temperature, seed)
        return written.values, written.offsets
