"""Keeps vLLM from generating ids that stand for no token, as a padded output layer can.

`SamplingParams.allowed_token_ids` does not serve: it names every id that is allowed, copies the list for each
request, and on GPUs takes 1,024 at most. A logits processor is one masked write a step.

vLLM has two model runners with an interface each; which of them runs is decided while the engine is made, so
one class serves both. Import this module in a worker only: vLLM does, by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor.interface import BatchUpdate, LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as SecondLogitsProcessor

if TYPE_CHECKING:
    from vllm import SamplingParams

NAME = "kdaudit.inference.vllm_mask:TokenMask"
"""How vLLM is told to load it."""
_KEY = "kdaudit_masked"


def masking(ids: Sequence[int]) -> dict[str, Any]:
    """What a request's `extra_args` have to hold for these ids to be masked."""
    return {_KEY: tuple(ids)}


class TokenMask(LogitsProcessor, SecondLogitsProcessor):  # type: ignore[misc] # vLLM is untyped
    """Masks what the latest request asks for.

    Invariant: all requests that an engine holds at one time ask for the same, since `match` and `generate`
    each end theirs before they return; so no row of a batch has to be told from the others.
    """

    def __init__(self, vllm_config: Any, *where: Any) -> None:  # noqa: ANN401, ARG002 - as either runner calls it
        self._ids: tuple[int, ...] = ()
        self._index: torch.Tensor | None = None

    def is_argmax_invariant(self) -> bool:
        """False: it can change which token is the likeliest."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """The first runner tells of new requests."""
        for _, params, _, _ in batch_update.added if batch_update is not None else ():
            self._ask(params)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:  # noqa: ARG002
        """The second runner tells of a new request."""
        self._ask(sampling_params)
        return bool(self._ids)

    def apply(self, logits: torch.Tensor, *context: Any) -> torch.Tensor:  # noqa: ANN401, ARG002
        """Mask ids in logits (rows, ids), in place."""
        if not self._ids:
            return logits
        if self._index is None:
            self._index = torch.tensor(self._ids, device=logits.device)
        return logits.index_fill_(1, self._index, float("-inf"))

    def _ask(self, params: SamplingParams) -> None:
        ids = (params.extra_args or {}).get(_KEY, ())
        if ids is not self._ids:
            self._ids, self._index = ids, None
