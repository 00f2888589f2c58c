"""Features of examples under a model, computed with transformers in a worker process.

Perplexity is exp of the mean negative log-likelihood, in nats, over all tokens after the first of each
window. Windows are met in batches of like length, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.engines import PRELOAD, explained
from kdaudit.engines.base import Tokens
from kdaudit.workers import Worker

if TYPE_CHECKING:
    import torch

_LOGITS_BYTES = 1 << 28
"""Memory that one batch's float32 logits may take."""


class FeatureService:
    """Runs in the worker: forward passes of one model."""

    def __init__(self, options: dict[str, Any]) -> None:
        from kdaudit.engines.transformers import load_model, pick_device

        self._device = pick_device()
        trusted = bool(options["trust_remote_code"])
        self._model = load_model(Path(options["path"]), options["dtype"], self._device, trusted)
        self._logits_bytes = _LOGITS_BYTES >> 2 * int(options["retreat"])
        self._vocabulary = int(self._model.get_input_embeddings().num_embeddings)

    def describe(self) -> str:
        """What the worker reports once it is ready."""
        return self._device

    def log_likelihood(
        self, flat: Tokens, ends: NDArray[np.int64], *, bos: int | None
    ) -> NDArray[np.float64]:
        """Sum of ln p(token | tokens before it) over each window, its first token left out.

        Args:
            flat: int32 (tokens,), all windows one after the other.
            ends: int64 (windows,), where each ends in `flat`.
            bos: begin token that stands before each window, or None.

        Returns:
            float64 (windows,), in nats.

        """
        windows = np.split(flat.astype(np.int64), ends[:-1])
        totals = np.zeros(len(windows), dtype=np.float64)
        for rows in self._batches([len(window) for window in windows]):
            totals[rows] = self._sums([windows[row] for row in rows], bos)
        return totals

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows of like length, as many as the logits' memory allows."""
        order = np.argsort(lengths, kind="stable")[::-1].tolist()
        start = 0
        while start < len(order):
            room = max(1, self._logits_bytes // (4 * self._vocabulary * (lengths[order[start]] + 1)))
            yield order[start : start + room]
            start += room

    def _sums(self, windows: Sequence[NDArray[np.int64]], bos: int | None) -> NDArray[np.float64]:
        import torch

        before = [] if bos is None else [bos]
        width = max(len(window) for window in windows) + len(before)
        ids = torch.zeros((len(windows), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, window in enumerate(windows):
            filled = len(window) + len(before)
            ids[row, :filled] = torch.tensor([*before, *window.tolist()])
            mask[row, :filled] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            found = _token_log_likelihood(logits[:, :-1], ids[:, 1:])
        # A begin token's successor is the window's first token, which does not count.
        return (found * mask[:, 1:])[:, len(before) :].double().sum(1).cpu().numpy()


def _token_log_likelihood(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Float32 ln p of each target: (rows, positions)."""
    from torch.nn.functional import cross_entropy

    flat = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return -flat.view(targets.shape)


class FeatureWorker:
    """Features under one model, from a process of its own; a context manager that ends the process.

    Args:
        path: the model's folder.
        dtype: as in `EngineOptions`.
        trust_remote_code: whether to run code that comes with the model.
        retreat: as in `EngineOptions`.

    Raises:
        EngineError: as `explained`.

    """

    def __init__(self, path: Path, dtype: str, trust_remote_code: bool, retreat: int) -> None:
        self._path = str(path)
        options = {
            "path": self._path,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
            "retreat": retreat,
        }
        with explained(self._path, "transformers"):
            self._worker = Worker("kdaudit.features:FeatureService", options, PRELOAD["transformers"])

    def log_likelihood(self, windows: Sequence[Tokens], bos: int | None) -> NDArray[np.float64]:
        """See `FeatureService.log_likelihood`."""
        ends = np.cumsum([len(window) for window in windows])
        with explained(self._path, "transformers"):
            return self._worker.call("log_likelihood", np.concatenate(windows), ends, bos=bos).arrays[0]

    def perplexity(self, batches: Iterable[Sequence[Tokens]], bos: int | None) -> float:
        """The exp of the mean negative log-likelihood over all tokens after the first of each window."""
        total, tokens = 0.0, 0
        for windows in batches:
            total += float(self.log_likelihood(windows, bos).sum())
            tokens += sum(len(window) - 1 for window in windows)
        return float(np.exp(-total / tokens))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()
