"""Forward passes of one model, in the worker: logits a bounded stretch of positions at a time.

A batch whose logits fit the bound is one plain pass. A single window that is longer is read in pieces, the
keys and values of the earlier ones in the model's own cache: each token still passes the model once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from kdaudit.inference.base import EngineInfo
from kdaudit.inference.float32_logits import with_float32_logits
from kdaudit.inference.scoring.batches import PaddedBatch

if TYPE_CHECKING:
    import torch

_LOGITS_BYTES = 1 << 28
"""Memory that one model's logits may take at once, as float32."""


class ModelFiles(NamedTuple):
    """Where a model lies and how it is loaded."""

    folder: Path
    dtype: str
    """auto (the checkpoint's own), float32, bfloat16 or float16."""
    trust_remote_code: bool

    def options(self) -> dict[str, Any]:
        """The same for a worker, in JSON."""
        return {**self._asdict(), "folder": str(self.folder)}


class Piece(NamedTuple):
    """A stretch of a batch's positions."""

    start: int
    stop: int


class CausalModel:
    """A loaded model.

    Args:
        model: of transformers.
        device: where it is.

    """

    def __init__(self, model: Any, device: str) -> None:  # noqa: ANN401 - any causal language model
        import torch
        import transformers

        self.device, self._model = device, model
        with torch.inference_mode():
            probe = self._model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=self.device))
        dtype = str(self._model.dtype).removeprefix("torch.")
        self.info = EngineInfo("transformers", transformers.__version__, self.device, dtype)
        self.columns = int(probe.logits.shape[-1])
        """Width of the logits; it can exceed the tokenizer's vocabulary."""
        self.keeps_cache = getattr(probe, "past_key_values", None) is not None
        """Whether a window can be read in pieces; recurrent models have no such cache."""

    @classmethod
    def load(cls, folder: str, dtype: str, trust_remote_code: bool) -> Self:
        """Load one, see `ModelFiles`."""
        from kdaudit.inference.transformers import load_model, pick_device

        device = pick_device()
        model = with_float32_logits(load_model(Path(folder), dtype, device, trust_remote_code))
        return cls(model, device)

    def read(self, batch: PaddedBatch, bos: int | None) -> Reading:
        """Begin to read a batch, each window after a BOS token where there is one."""
        return Reading(self._model, batch, bos, self.device)


class Reading:
    """One batch's way through a model, from left to right."""

    def __init__(self, model: Any, batch: PaddedBatch, bos: int | None, device: str) -> None:  # noqa: ANN401
        import torch

        self._model = model
        self._before = 0 if bos is None else 1
        columns = ((0, 0), (self._before, 0))
        inputs = np.pad(batch.inputs, columns, constant_values=bos or 0)
        mask = np.pad(batch.mask, columns, constant_values=1)
        self._inputs, self._mask = (torch.from_numpy(ids).to(device) for ids in (inputs, mask))
        self._cache: Any = None

    def logits(self, piece: Piece) -> torch.Tensor:
        """Logits at the next positions of the windows: (rows, positions, columns).

        What a BOS token predicts, the window's first token, is left out.
        """
        start, stop = piece.start and piece.start + self._before, piece.stop + self._before
        whole = (start, stop) == (0, self._inputs.shape[1])
        found = self._model(
            input_ids=self._inputs[:, start:stop],
            attention_mask=self._mask[:, :stop],
            **({"use_cache": False} if whole else {"use_cache": True, "past_key_values": self._cache}),
        )
        self._cache = None if whole else found.past_key_values
        logits: torch.Tensor = found.logits
        return logits[:, stop - start - (piece.stop - piece.start) :]


def logits_room(retries: int, *models: CausalModel) -> int:
    """Positions whose logits may be held at once, of each model; a quarter for each retry."""
    return max(1, (_LOGITS_BYTES >> 2 * retries) // (4 * max(model.columns for model in models)))


def logits_of(
    batch: PaddedBatch, room: int, models: Sequence[CausalModel], bos: Sequence[int | None]
) -> Iterator[tuple[Piece, list[torch.Tensor]]]:
    """Read a batch under some models side by side: each stretch's logits, as in `Reading.logits`.

    They are dropped before those of the next stretch are made, where the caller keeps none.
    """
    readings = [model.read(batch, begin) for model, begin in zip(models, bos, strict=True)]
    for piece in pieces(batch, room, *models):
        logits = [reading.logits(piece) for reading in readings]
        yield piece, logits
        logits.clear()


def pieces(batch: PaddedBatch, room: int, *models: CausalModel) -> Iterator[Piece]:
    """How a batch is read: whole, unless it is one window longer than `room` that all can read in pieces."""
    rows, width = batch.inputs.shape
    step = width if rows > 1 or not all(model.keeps_cache for model in models) else room
    for start in range(0, width, step):
        yield Piece(start, min(start + step, width))
