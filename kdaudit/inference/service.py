"""An engine in its worker process: rows of any length travel as pairs of arrays."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import Engine, Loaded, MatchedBytes, Sampling, Scores, Task
from kdaudit.inference.examples import Batch, Lengths, Ragged, Tokens

_ENGINES = {
    "endpoint": "kdaudit.inference.endpoint.engine:EndpointEngine",
    "vllm": "kdaudit.inference.vllm:VllmEngine",
    "transformers": "kdaudit.inference.transformers:TransformersEngine",
}


class EngineService:
    """Runs in the worker: one model.

    Args:
        options: the fields of `EngineOptions`.

    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._engine: Engine = imported(_ENGINES[options["engine"]])(options)

    def describe(self) -> Loaded:
        """See `Engine.describe`."""
        return self._engine.describe()

    def match(
        self, prompts: Tokens, prompt_offsets: Lengths, targets: Tokens, target_offsets: Lengths
    ) -> NDArray[np.int16]:
        """See `Engine.match`; for the arguments see `Ragged`."""
        return self._engine.match(Ragged(prompts, prompt_offsets), Ragged(targets, target_offsets))

    def match_text(
        self, prompts: Tokens, prompt_offsets: Lengths, targets: Tokens, target_offsets: Lengths
    ) -> MatchedBytes:
        """See `Engine.match_text`; for the arguments see `Ragged`."""
        return self._engine.match_text(Ragged(prompts, prompt_offsets), Ragged(targets, target_offsets))

    def run(
        self,
        ids: Lengths,
        prompts: Tokens,
        prompt_offsets: Lengths,
        targets: Tokens,
        target_offsets: Lengths,
        *,
        task: str,
        settings: dict[str, Any],
    ) -> NDArray[np.uint8]:
        """See `Task.run`; `task` is "module:Class", `settings` its fields. Gives an Arrow stream."""
        import pyarrow as pa

        examples = Batch(ids, Ragged(prompts, prompt_offsets), Ragged(targets, target_offsets))
        made: Task = imported(task)(**settings)
        table = made.run(self._engine, examples)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return np.frombuffer(sink.getvalue(), np.uint8)

    def score(self, values: Tokens, offsets: Lengths, *, sampling: list[Any] | None) -> Scores:
        """See `Engine.score`; for the arguments see `Ragged` and `Sampling`."""
        return self._engine.score(Ragged(values, offsets), None if sampling is None else Sampling(*sampling))

    def generate(
        self, prompts: Tokens, offsets: Lengths, tokens: Lengths, *, temperature: float, seed: int
    ) -> tuple[Tokens, Lengths]:
        """See `Engine.generate`."""
        written = self._engine.generate(Ragged(prompts, offsets), tokens, temperature, seed)
        return written.values, written.offsets


def imported(name: str) -> Any:  # noqa: ANN401 - a class
    """What "module:Class" names."""
    module, _, inside = name.partition(":")
    return getattr(importlib.import_module(module), inside)
